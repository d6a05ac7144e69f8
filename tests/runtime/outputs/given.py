"""What the tests of outputs give to them, and how they wait for what threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.decisions.event import Event, EventKind, Phase, Region
from patchline.runtime.verdict import JudgedFrame

from ..fakes import NOON, gray, judged_frame

PATIENCE_S = 20.0
"""Long enough for two busy cores; a test that passes does not wait for it."""


def wait_until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.005)


def frame(
    index: int = 0,
    *,
    camera: str = "camera1",
    score: float = 100.0,
    image: Any = None,
    time: datetime = NOON,
) -> JudgedFrame:
    judged = judged_frame(gray(90) if image is None else image, score=score, index=index)
    return replace(judged, verdict=replace(judged.verdict, camera=camera, time=time))


def event(
    number: int = 0,
    *,
    kind: EventKind = EventKind.DEFECT,
    phase: Phase = Phase.STARTED,
    camera: str = "camera1",
    detail: str = "",
    peak: JudgedFrame | None = None,
) -> Event:
    return Event(
        id=f"{number:032x}",
        kind=kind,
        phase=phase,
        camera=camera,
        class_name="lamp",
        start=NOON,
        end=NOON + timedelta(seconds=2) if phase is Phase.ENDED else None,
        first_frame=7,
        last_frame=9,
        frames=3,
        peak_score=300.5,
        threshold=200.0,
        regions=(Region(1, 2, 3, 4, 280.25),),
        detail=detail,
        peak=peak,
    )


def state(
    new: StreamState = StreamState.RUNNING, *, camera: str = "camera1", detail: str = ""
) -> StateChange:
    return StateChange(camera, new, NOON, detail)


class Told:
    """Keeps what is told of failures."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, name: str, sentence: str) -> None:
        self.all.append((name, sentence))

    @property
    def sentences(self) -> list[str]:
        return [sentence for _, sentence in self.all]
