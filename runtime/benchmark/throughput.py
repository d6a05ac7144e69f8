"""Calls one after the other, and calls that overlap: how long each takes, how many pass."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass

from patchline.runtime.benchmark.frames import FramePool
from patchline.runtime.benchmark.measurable import Measurable, Pending, SlotEngine, Submitting
from patchline.runtime.benchmark.timing import Limits, collect, timed
from patchline.runtime.clock import Clock
from patchline.runtime.interrupt import raise_if_interrupted
from patchline.runtime.preprocess import Frame


@dataclass(frozen=True)
class BatchRun:
    """Calls of one batch size.

    Attributes:
        batch: frames in one call.
        in_flight: calls under way at once.
        samples_ms: of each call from the frames to the outputs; where calls overlap, from one
            call's outputs to the next one's.
        elapsed_s: of all of them.
    """

    batch: int
    in_flight: int
    samples_ms: list[float]
    elapsed_s: float

    @property
    def frames_per_s(self) -> float:
        """How many frames were judged in a second."""
        return self.batch * len(self.samples_ms) / self.elapsed_s


class Overlapped:
    """Keeps as many calls in flight as an engine takes.

    Args:
        engine: has slots.
        in_flight: how many calls.
    """

    def __init__(self, engine: Submitting, in_flight: int) -> None:
        self._engine, self._in_flight = engine, in_flight
        self._pending: collections.deque[Pending] = collections.deque()

    def step(self, frames: Frame) -> None:
        """Begin a call, and wait for the oldest one once enough are under way."""
        self._pending.append(self._engine.submit(frames))
        if len(self._pending) == self._in_flight:
            self._pending.popleft().result()

    def finish(self) -> None:
        """Wait for all that is under way."""
        while self._pending:
            self._pending.popleft().result()


def make_ready(engine: Measurable, feed: Callable[[], Frame]) -> None:
    """Call twice in each slot: buffers, and a CUDA graph with its first launch, however slow.

    A warm-up of 200 ms may be over after a single call, and that uses one slot.
    """
    for _ in range(2 * engine.facts.in_flight):
        raise_if_interrupted()
        engine.infer(feed())


def one_in_flight(
    engine: Measurable, pool: FramePool, batch: int, limits: Limits, clock: Clock
) -> BatchRun:
    """Calls one after the other: latency, and the throughput of who waits for each answer."""
    feed = pool.feed(batch)
    make_ready(engine, feed)
    run = collect(timed(lambda: engine.infer(feed()), clock), limits, clock)
    return BatchRun(batch, 1, run.samples, run.elapsed_s)


def overlapped(
    engine: SlotEngine, pool: FramePool, batch: int, limits: Limits, clock: Clock
) -> BatchRun:
    """As many calls at once as the engine takes."""
    feed, in_flight = pool.feed(batch), engine.facts.in_flight
    calls = Overlapped(engine, in_flight)
    for _ in range(in_flight - 1):  # so that every step that is timed ends one call
        calls.step(feed())
    run = collect(timed(lambda: calls.step(feed()), clock), limits, clock)
    calls.finish()
    return BatchRun(batch, in_flight, run.samples, run.elapsed_s)
