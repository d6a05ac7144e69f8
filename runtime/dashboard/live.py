"""What the dashboard knows of the line: an output that keeps what is newest, and draws on demand.

While nobody looks a frame costs a few references. With viewers each picture is drawn once, in a
thread of its own, however many browsers show it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import cv2

from patchline.runtime.camera.states import StateChange
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.dashboard.event_log import EventLog, LoggedEvent
from patchline.runtime.dashboard.pictures import PictureKind, event_jpeg, live_jpeg
from patchline.runtime.dashboard.scores import ScorePoint, ScoreRing
from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import PatchlineError
from patchline.runtime.verdict import JudgedFrame, Verdict

logger = logging.getLogger(__name__)

PICTURE_INTERVAL_S = 0.1
_JOIN_S = 5.0


@dataclass(frozen=True)
class LivePicture:
    """A drawn picture.

    Attributes:
        number: of all pictures in the order in which they were drawn, from 1.
        jpeg: the picture.
        verdict: of its frame.
    """

    number: int
    jpeg: bytes
    verdict: Verdict


class LiveView:
    """An :class:`~patchline.runtime.outputs.base.Output` for the dashboard; for many threads.

    Args:
        clock: tells when frames came.
    """

    name = "the dashboard"

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: dict[str, JudgedFrame] = {}
        self._scores: dict[str, ScoreRing] = {}
        self._events = EventLog()
        self._looks: dict[object, PictureKind | None] = {}
        self._drawn: dict[tuple[str, PictureKind], JudgedFrame] = {}
        self._pictures: dict[tuple[str, PictureKind], LivePicture] = {}
        self._undrawable: set[str] = set()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.pictures_drawn = 0

    def write(self, judged: JudgedFrame) -> None:
        """Keep the frame as its camera's newest; never blocks, and draws nothing."""
        verdict = judged.verdict
        point = ScorePoint(
            self._clock.monotonic(), verdict.score, verdict.threshold, verdict.anomalous
        )
        with self._lock:
            self._newest[verdict.camera] = judged
            ring = self._scores.get(verdict.camera)
            if ring is None:
                ring = self._scores[verdict.camera] = ScoreRing()
            ring.add(point)

    def notify(self, notice: Notice) -> None:
        """Keep an event; its picture is made in the background, so that it outlives the frame."""
        with self._lock:
            if isinstance(notice, StateChange):
                self._events.add_state(notice)
                return
            self._events.add(notice)
        self._work()

    def close(self) -> None:
        """Stop drawing; what is known stays. A second call does nothing."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed.set()
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def look(self, viewer: object, kind: PictureKind | None) -> None:
        """From now on ``viewer`` wants pictures of this kind; ``None`` for none."""
        with self._lock:
            self._looks[viewer] = kind
        if kind is not None:
            self._work()

    def leave(self, viewer: object) -> None:
        """``viewer`` looks no more; pictures that nobody wants are forgotten."""
        with self._lock:
            self._looks.pop(viewer, None)
            wanted = self._wanted()
            for made in (self._drawn, self._pictures):
                for key in [key for key in made if key[1] not in wanted]:
                    del made[key]

    def picture(self, camera: str, kind: PictureKind) -> LivePicture | None:
        """The newest picture that was drawn."""
        with self._lock:
            return self._pictures.get((camera, kind))

    def verdict(self, camera: str) -> Verdict | None:
        """Of the newest frame of a camera."""
        with self._lock:
            judged = self._newest.get(camera)
        return None if judged is None else judged.verdict

    def scores_since(self, camera: str, number: int) -> tuple[list[ScorePoint], int]:
        """The points after point ``number``, oldest first, and the number of the last one."""
        with self._lock:
            ring = self._scores.get(camera)
            if ring is None:
                return [], 0
            return ring.since(number, self._clock.monotonic()), ring.count

    def events_since(self, change: int) -> tuple[list[LoggedEvent], int]:
        """The events that changed after ``change``, oldest first, and the latest change."""
        with self._lock:
            return self._events.since(change), self._events.change

    def event_picture(self, identity: str) -> bytes | None:
        """The picture of an event as JPEG; ``None`` where there is none."""
        with self._lock:
            return self._events.picture(identity)

    def draw(self) -> None:
        """Draw what is wanted and not drawn yet; the view's own thread does it."""
        while (waiting := self._take_event()) is not None:
            identity, judged = waiting
            jpeg = self._drawing(judged, None)
            if jpeg is not None:
                with self._lock:
                    self._events.put_picture(identity, jpeg)
        for (camera, kind), judged in self._due().items():
            jpeg = self._drawing(judged, kind)
            with self._lock:
                if jpeg is not None and kind in self._wanted():
                    self.pictures_drawn += 1
                    live = LivePicture(self.pictures_drawn, jpeg, judged.verdict)
                    self._pictures[camera, kind] = live

    def _take_event(self) -> tuple[str, JudgedFrame] | None:
        with self._lock:
            return self._events.take_waiting()

    def _due(self) -> dict[tuple[str, PictureKind], JudgedFrame]:
        with self._lock:
            due = {
                (camera, kind): judged
                for camera, judged in self._newest.items()
                for kind in self._wanted()
                if self._drawn.get((camera, kind)) is not judged
            }
            self._drawn.update(due)
        return due

    def _wanted(self) -> set[PictureKind]:
        return {kind for kind in self._looks.values() if kind is not None}

    def _drawing(self, judged: JudgedFrame, kind: PictureKind | None) -> bytes | None:
        camera = judged.verdict.camera
        try:
            return event_jpeg(judged) if kind is None else live_jpeg(judged, kind)
        except (PatchlineError, cv2.error) as error:
            if camera not in self._undrawable:
                self._undrawable.add(camera)
                logger.warning("the dashboard cannot draw the frames of %s: %s", camera, error)
            return None

    def _work(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="dashboard-pictures", daemon=True
                )
                self._thread.start()
            self._wake.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            self.draw()
            while self._is_watched() and not self._closed.is_set():
                began_s = self._clock.monotonic()
                self.draw()
                spent_s = self._clock.monotonic() - began_s
                # Never more than half of a core, whatever the pictures and cameras.
                self._clock.wait(self._closed, max(PICTURE_INTERVAL_S - spent_s, spent_s))

    def _is_watched(self) -> bool:
        with self._lock:
            return bool(self._wanted())
