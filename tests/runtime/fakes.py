"""Stand-ins for what the camera loop talks to: an engine, a source, a clock, an output."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.contract import Manifest
from patchline.runtime.decisions.event import Notice
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import ConfigurationError, EngineError
from patchline.runtime.preprocess import Frame, check_frames
from patchline.runtime.verdict import JudgedFrame, StageTimes, Verdict

from .tiny_model import THRESHOLD, make_manifest

NOON = datetime(2024, 5, 17, 12, 0, tzinfo=timezone(timedelta(hours=2)))


class FakeEngine:
    """Computes what the tiny model computes: the brighter, the more anomalous."""

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.manifest = manifest or make_manifest()
        self.description = "a fake"
        self._is_closed = False

    def infer(self, frames: Frame) -> Prediction:
        if self._is_closed:
            raise EngineError("the engine is closed")
        check_frames(frames, self.manifest.model_size)
        anomaly_map = frames.mean(axis=3, dtype=np.float32)
        return Prediction(anomaly_map.max(axis=(1, 2)), anomaly_map, anomaly_map / 2)

    def load_bank(self, path: Path) -> None:
        raise ConfigurationError(f"a fake holds its own memory bank, so {path} would not be used")

    def close(self) -> None:
        self._is_closed = True

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


class FakeClock:
    """Time passes only where somebody waits, or by ``step_s`` at each look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.time_s = 0.0
        self.step_s = step_s
        self.waits_s: list[float] = []

    def monotonic(self) -> float:
        self.time_s += self.step_s
        return self.time_s

    def now(self) -> datetime:
        return NOON

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits_s.append(seconds)
        self.time_s += max(seconds, 0.0)
        return event.is_set()


class FakeSource:
    """Gives prepared images, then raises ``error`` if there is one."""

    name = "a fake"
    fps: float | None = None
    path: Path | None = None
    skipped_unreadable = 0

    def __init__(
        self,
        images: Sequence[Any],
        *,
        is_live: bool = False,
        error: BaseException | None = None,
        is_endless: bool = False,
    ) -> None:
        self.is_live = is_live
        self.is_closed = threading.Event()
        self.given: list[int] = []
        self._images = images
        self._error = error
        self._is_endless = is_endless

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        index = 0
        while index < len(self._images) or self._is_endless:
            image = self._images[index % len(self._images)]
            self.given.append(index)
            yield CapturedFrame(image, index, NOON, 1.0)
            index += 1
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.is_closed.set()


class FakeOutput:
    """Remembers what it was given; raises ``error`` at frame ``fails_at`` or on closing."""

    def __init__(
        self,
        name: str = "a fake",
        *,
        fails_at: int | None = None,
        error: Exception | None = None,
        close_error: Exception | None = None,
    ) -> None:
        self.name = name
        self.judged: list[JudgedFrame] = []
        self.notices: list[Notice] = []
        self.closings = 0
        self._fails_at = fails_at
        self._error = error
        self._close_error = close_error

    @property
    def verdicts(self) -> list[Verdict]:
        return [judged.verdict for judged in self.judged]

    def write(self, judged: JudgedFrame) -> None:
        if self._error is not None and len(self.judged) == self._fails_at:
            raise self._error
        self.judged.append(judged)

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    def close(self) -> None:
        self.closings += 1
        if self._close_error is not None:
            raise self._close_error


def gray(value: int, height: int = 48, width: int = 64) -> Frame:
    """A plain picture."""
    return np.full((height, width, 3), value, np.uint8)


def judged_frame(
    image: Any,
    anomaly_map: Any = None,
    *,
    score: float = 100.0,
    threshold: float = THRESHOLD,
    map_value: float = THRESHOLD,
    index: int = 0,
    file: str | None = None,
) -> JudgedFrame:
    """What an output is given."""
    if anomaly_map is None:
        anomaly_map = np.zeros((32, 32), np.float32)
    captured = CapturedFrame(image, index, NOON, 1.5, file)
    times = StageTimes(read_ms=1.5, wait_ms=0.25, preprocess_ms=2.0, infer_ms=3.0, output_ms=4.0)
    verdict = Verdict("lamp", index, "a fake", file, NOON, score, threshold, times)
    return JudgedFrame(verdict, captured, anomaly_map, anomaly_map * 0 + 0.5, map_value)
