"""From the verdicts of one camera to its events: defects that were seen often enough, and drift."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from patchline.runtime.decisions.debounce import Debounce
from patchline.runtime.decisions.drift import Drift
from patchline.runtime.decisions.event import Event, EventKind, Phase
from patchline.runtime.decisions.regions import find_regions
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.verdict import JudgedFrame

MakeId = Callable[[], str]


def random_id() -> str:
    """32 hexadecimal digits that nobody else has."""
    return uuid.uuid4().hex


class Decider:
    """Makes events of the frames of one camera, in their order.

    A defect is a chain of anomalous frames with fewer than ``window`` good ones between any two;
    it is told once ``needed`` of ``window`` frames in a row were anomalous, and belongs to the
    chain from its first frame on. While a drift goes on no defect starts, and its frames count
    for none. Frames count, not time: a gap in the stream neither ends nor starts anything.

    All but the two setters is called from one thread.

    Args:
        camera: its name.
        trigger: the debounce.
        drift: watches the scores; ``None`` for no watch.
        make_id: gives each event its id.
    """

    def __init__(
        self,
        camera: str,
        *,
        trigger: Trigger,
        drift: Drift | None,
        make_id: MakeId = random_id,
    ) -> None:
        self._camera, self._make_id = camera, make_id
        self._debounce = Debounce(trigger)
        self._drift, self._next_drift = drift, drift
        self._next_trigger = trigger
        self._chain: _Episode | None = None
        self._drifting: _Episode | None = None

    @property
    def trigger(self) -> Trigger:
        """The debounce that holds, or will from the next frame on."""
        return self._next_trigger

    @property
    def is_drifting(self) -> bool:
        """Whether a drift goes on."""
        return self._drifting is not None

    def set_trigger(self, trigger: Trigger) -> None:
        """Debounce otherwise from the next frame on, from any thread; the latest frames count."""
        self._next_trigger = trigger

    def set_drift(self, drift: Drift | None) -> None:
        """Judge by other normal scores from the next frame on, from any thread.

        To be called at each switch of the product: scores of two products do not compare. What
        goes on is ended at the next frame, and nothing that was before it counts.
        """
        self._next_drift = drift

    def decide(self, judged: JudgedFrame) -> list[Event]:
        """What starts or is over with this frame, in the order in which it is to be told."""
        events = self._take_up_changes(judged)
        if self._drift is not None:
            events += self._watch_drift(self._drift, judged)
        if self._drifting is None or self._debounce.is_active:
            events += self._watch_defects(judged)
        return events

    def close(self, time: datetime) -> list[Event]:
        """End what goes on, because the camera has come to its end.

        Args:
            time: of that end. A drift lasts up to it, a defect up to its last anomalous frame.
        """
        events = self._end_defect()
        if self._drifting is not None:
            self._drifting.end = time
        return events + self._end_drift("the camera has ended")

    def _take_up_changes(self, judged: JudgedFrame) -> list[Event]:
        events: list[Event] = []
        if self._next_drift is not self._drift:
            self._drift = self._next_drift
            events = self._end_defect() + self._end_drift("another product is judged")
        elif self._chain is not None and not self._chain.is_of(judged):
            events = self._end_defect()
        if self._next_trigger != self._debounce.trigger:
            self._debounce.trigger = self._next_trigger
            if self._debounce.is_quiet and not self._debounce.is_active:
                self._forget_chain()
        return events

    def _watch_drift(self, drift: Drift, judged: JudgedFrame) -> list[Event]:
        phase = drift.feed(judged.verdict.score)
        if phase is Phase.STARTED:
            self._drifting = self._episode(EventKind.DRIFT, judged)
            self._drifting.detail = drift.detail
            if not self._debounce.is_active:
                self._forget_chain()
            return [self._drifting.event(Phase.STARTED)]
        if phase is Phase.ENDED:
            return self._end_drift(drift.detail)
        if self._drifting is not None:
            self._drifting.add(judged)
        return []

    def _watch_defects(self, judged: JudgedFrame) -> list[Event]:
        if judged.verdict.anomalous:
            if self._chain is None:
                self._chain = self._episode(EventKind.DEFECT, judged)
            else:
                self._chain.add(judged)
        phase = self._debounce.feed(judged.verdict.anomalous)
        events = [] if phase is None or self._chain is None else [self._chain.event(phase)]
        if self._debounce.is_quiet:
            self._forget_chain()
        return events

    def _end_defect(self) -> list[Event]:
        chain, was_told = self._chain, self._debounce.is_active
        self._forget_chain()
        return [chain.event(Phase.ENDED)] if chain is not None and was_told else []

    def _end_drift(self, detail: str) -> list[Event]:
        drifting, self._drifting = self._drifting, None
        if drifting is None:
            return []
        drifting.detail = detail
        return [drifting.event(Phase.ENDED)]

    def _episode(self, kind: EventKind, judged: JudgedFrame) -> _Episode:
        return _Episode(kind, self._make_id(), self._camera, judged)

    def _forget_chain(self) -> None:
        self._chain = None
        self._debounce.reset()


class _Episode:
    """What goes on: its first frame, its last one and the one with the largest score."""

    def __init__(self, kind: EventKind, id_: str, camera: str, judged: JudgedFrame) -> None:
        self._kind, self._id, self._camera = kind, id_, camera
        self._first = judged.verdict
        self._peak = judged
        self._anomalous = 0
        self.detail = ""
        self.add(judged)

    def add(self, judged: JudgedFrame) -> None:
        """Let a frame belong to it."""
        self._last = judged.verdict
        self.end = judged.verdict.time
        self._anomalous += judged.verdict.anomalous
        if judged.verdict.score > self._peak.verdict.score:
            self._peak = judged

    def is_of(self, judged: JudgedFrame) -> bool:
        """Whether a frame was judged for the same product."""
        return judged.verdict.class_name == self._first.class_name

    def event(self, phase: Phase) -> Event:
        """It as it is now."""
        peak = self._peak
        picture = peak.captured.image.shape
        return Event(
            id=self._id,
            kind=self._kind,
            phase=phase,
            camera=self._camera,
            class_name=self._first.class_name,
            start=self._first.time,
            end=self.end if phase is Phase.ENDED else None,
            first_frame=self._first.frame,
            last_frame=self._last.frame,
            frames=self._anomalous,
            peak_score=peak.verdict.score,
            threshold=peak.verdict.threshold,
            regions=find_regions(peak.anomaly_map, peak.map_value, (picture[0], picture[1])),
            detail=self.detail,
            peak=peak,
        )
