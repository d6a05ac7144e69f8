"""The latest events with their pictures, in bounded memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.decisions.event import Event
from patchline.runtime.verdict import JudgedFrame

CAPACITY = 100
LARGEST_BYTES = 16 * 2**20
"""Of all pictures together; the oldest events lose theirs first."""

WAITING_PICTURES = 8
"""Whole frames that wait for their picture: events that come faster than pictures go without."""

_LOST = (StreamState.STALLED, StreamState.RECONNECTING, StreamState.FAILED)


@dataclass(frozen=True)
class LoggedEvent:
    """An event as it is listed.

    Attributes:
        id: hexadecimal digits.
        kind: ``defect``, ``drift``, or ``camera`` for a camera that was lost.
        camera: name of the camera.
        class_name: the product; empty for a lost camera.
        start: time of its start.
        end: time of its end; ``None`` while it goes on.
        frames: anomalous frames so far.
        peak_score: the largest score so far; ``None`` for a lost camera.
        threshold: what it was compared with; likewise.
        regions: how many parts of the picture were above the map's threshold.
        detail: a sentence, or empty.
        change: number of the latest change; of all events together.
        picture: number of the change that the picture belongs to; 0 without a picture.
    """

    id: str
    kind: str
    camera: str
    class_name: str
    start: datetime
    end: datetime | None
    frames: int
    peak_score: float | None
    threshold: float | None
    regions: int
    detail: str
    change: int
    picture: int = 0


class EventLog:
    """The latest :data:`CAPACITY` events. Not for several threads at once."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, LoggedEvent] = OrderedDict()
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._waiting: OrderedDict[str, JudgedFrame] = OrderedDict()
        self._lost: dict[str, str] = {}
        self.change = 0

    def add(self, event: Event) -> None:
        """Take an event that starts, or is over."""
        before = self._events.get(event.id)
        logged = LoggedEvent(
            event.id,
            event.kind.value,
            event.camera,
            event.class_name,
            event.start,
            event.end,
            event.frames,
            event.peak_score,
            event.threshold,
            len(event.regions),
            event.detail,
            self._next_change(),
            0 if before is None else before.picture,
        )
        self._put(logged)
        if event.peak is not None and (before is None or before.peak_score != event.peak_score):
            self._waiting[event.id] = event.peak
            while len(self._waiting) > WAITING_PICTURES:
                self._waiting.popitem(last=False)

    def add_state(self, change: StateChange) -> None:
        """Take a camera's change of state: its loss is an event, which its return ends."""
        known = self._events.get(self._lost.get(change.camera, ""))
        if change.state in _LOST:
            if known is None:
                known = self._loss(change)
                self._lost[change.camera] = known.id
            self._put(replace(known, detail=change.detail, change=self._next_change()))
        elif known is not None and change.state is not StreamState.CONNECTING:
            self._put(replace(known, end=change.time, change=self._next_change()))
            del self._lost[change.camera]

    def _loss(self, change: StateChange) -> LoggedEvent:
        identity = secrets.token_hex(16)
        return LoggedEvent(
            identity, "camera", change.camera, "", change.time, None, 0, None, None, 0, "", 0
        )

    def take_waiting(self) -> tuple[str, JudgedFrame] | None:
        """The newest event whose picture is to be made, and its frame."""
        return self._waiting.popitem() if self._waiting else None

    def put_picture(self, identity: str, jpeg: bytes) -> None:
        """Keep the picture of an event."""
        logged = self._events.get(identity)
        if logged is None:
            return
        change = self._next_change()
        self._events[identity] = replace(logged, change=change, picture=change)
        self._pictures[identity] = jpeg
        while sum(map(len, self._pictures.values())) > LARGEST_BYTES:
            self._drop_picture(next(iter(self._pictures)))

    def picture(self, identity: str) -> bytes | None:
        """The picture of an event as JPEG; ``None`` where there is none."""
        return self._pictures.get(identity)

    def since(self, change: int) -> list[LoggedEvent]:
        """The events that changed after ``change``, oldest first."""
        return [logged for logged in self._events.values() if logged.change > change]

    def _next_change(self) -> int:
        self.change += 1
        return self.change

    def _put(self, logged: LoggedEvent) -> None:
        self._events[logged.id] = logged
        while len(self._events) > CAPACITY:
            identity, _ = self._events.popitem(last=False)
            self._pictures.pop(identity, None)
            self._waiting.pop(identity, None)

    def _drop_picture(self, identity: str) -> None:
        del self._pictures[identity]
        logged = self._events[identity]
        self._events[identity] = replace(logged, change=self._next_change(), picture=0)
