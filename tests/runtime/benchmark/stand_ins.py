"""Engines that take their time by a fake clock, and say how they run."""

from __future__ import annotations

import collections
from dataclasses import replace
from typing import Any

import numpy as np

from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import EngineFacts, PhaseTimes, Prediction, Wait
from patchline.runtime.errors import EngineError
from patchline.runtime.preprocess import Frame

from ..fakes import FakeClock, FakeEngine
from ..tiny_model import make_manifest

FACTS = EngineFacts(
    runtime="ONNX Runtime",
    version="1.20.0",
    provider="CPUExecutionProvider",
    gpu=None,
    threads=1,
    cuda_graph=False,
    wait=Wait.NONE,
    least_batch=1,
    most_batch=None,
    in_flight=1,
)
PLAN_FACTS = replace(
    FACTS,
    runtime="TensorRT",
    version="10.3.0",
    provider="TensorRT",
    gpu="Orin (8.7)",
    threads=None,
    cuda_graph=True,
    wait=Wait.CUDA,
    most_batch=4,
    in_flight=2,
)


class TimedEngine(FakeEngine):
    """A call of B frames takes ``call_ms + B frame_ms``; ``log`` keeps what was called."""

    def __init__(
        self,
        clock: FakeClock,
        call_ms: float = 2.0,
        frame_ms: float = 1.0,
        *,
        facts: EngineFacts = FACTS,
        manifest: Manifest | None = None,
        name: str = "",
        log: list[Any] | None = None,
    ) -> None:
        super().__init__(manifest or make_manifest())
        self.facts, self.name, self.log = facts, name, [] if log is None else log
        self._clock, self._call_ms, self._frame_ms = clock, call_ms, frame_ms

    def infer(self, frames: Frame) -> Prediction:
        self.log.append((self.name, len(frames), self._clock.time_s))
        self._clock.time_s += 1e-3 * self.milliseconds(frames)
        return super().infer(frames)

    def milliseconds(self, frames: Frame) -> float:
        return self._call_ms + len(frames) * self._frame_ms


class SlotPlan(TimedEngine):
    """Two calls in flight: a call costs only its compute when it overlaps with another."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(clock, **({"facts": PLAN_FACTS} | options))
        self.most_in_flight = 0
        self.pending: collections.deque[_Pending] = collections.deque()

    def submit(self, frames: Frame) -> _Pending:
        pending = _Pending(self, frames)
        self.pending.append(pending)
        self.most_in_flight = max(self.most_in_flight, len(self.pending))
        if len(self.pending) > self.facts.in_flight:
            raise EngineError("more in flight than there are slots")
        return pending

    def time_phases(self, frames: Frame) -> PhaseTimes:
        assert not self.pending, "something else is in flight"
        self._clock.time_s += 1e-3 * self.milliseconds(frames)
        count = float(len(frames))
        return PhaseTimes(0.25 * count, 2.0 * count, 0.5 * count, 0.125)


class _Pending:
    def __init__(self, engine: SlotPlan, frames: Frame) -> None:
        self._engine, self._frames = engine, frames

    def result(self) -> Prediction:
        assert self._engine.pending.popleft() is self, "not the oldest"
        self._engine._clock.time_s += 1e-3 * len(self._frames) * self._engine._frame_ms
        return FakeEngine.infer(self._engine, self._frames)


def blank(count: int = 1) -> Frame:
    return np.zeros((count, 32, 32, 3), np.uint8)
