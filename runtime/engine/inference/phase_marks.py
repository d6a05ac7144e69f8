"""Marks in the streams that say how long each phase of a call took (trtexec's convention).

A mark is reached when all that its stream was given before it is done; the time between two is the
GPU's own. The time to queue is the CPU's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from patchline.runtime.engine.base import PhaseTimes
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.cuda.objects import Event, Stream
from patchline.runtime.engine.cuda.resources import Resources

H2D, COMPUTE, D2H = "h2d", "compute", "d2h"


class Marks(Protocol):
    """What a call sets as it goes; one that is not timed sets nothing."""

    def begin(self, phase: str, stream: Stream) -> None:
        """What ``stream`` is given from here on is of the phase."""

    def end(self, phase: str, stream: Stream) -> None:
        """Up to here."""

    def compute(self, queue: Callable[[], None], stream: Stream) -> None:
        """Call ``queue``, which queues the computing in ``stream``."""


class _NoMarks:
    def begin(self, phase: str, stream: Stream) -> None:
        pass

    def end(self, phase: str, stream: Stream) -> None:
        pass

    def compute(self, queue: Callable[[], None], stream: Stream) -> None:
        queue()


NO_MARKS: Marks = _NoMarks()
"""Of a call that is not timed."""


class PhaseMarks:
    """Two timed events for each phase on the GPU.

    Args:
        gpu: where; it is current.
        resources: releases them.

    Raises:
        EngineError: CUDA makes no event.
    """

    def __init__(self, gpu: Gpu, resources: Resources) -> None:
        self._enqueue_ms = 0.0
        self._events: dict[str, tuple[Event, Event]] = {}
        for phase in (H2D, COMPUTE, D2H):
            self._events[phase] = self._event(gpu, resources), self._event(gpu, resources)

    @staticmethod
    def _event(gpu: Gpu, resources: Resources) -> Event:
        event = gpu.event(is_timed=True)
        resources.events.add(event)
        return event

    def begin(self, phase: str, stream: Stream) -> None:
        """What ``stream`` is given from here on is of the phase."""
        self._events[phase][0].record(stream)

    def end(self, phase: str, stream: Stream) -> None:
        """Up to here."""
        self._events[phase][1].record(stream)

    def compute(self, queue: Callable[[], None], stream: Stream) -> None:
        """Call ``queue``, which queues the computing in ``stream``, and time that as well."""
        self.begin(COMPUTE, stream)
        started = time.perf_counter()
        queue()
        self._enqueue_ms = 1e3 * (time.perf_counter() - started)
        self.end(COMPUTE, stream)

    def times(self) -> PhaseTimes:
        """Of the last call, whose outputs were waited for.

        Raises:
            EngineError: CUDA has no time, or the GPU is lost.
        """
        found = {phase: end.ms_since(begin) for phase, (begin, end) in self._events.items()}
        return PhaseTimes(found[H2D], found[COMPUTE], found[D2H], self._enqueue_ms)
