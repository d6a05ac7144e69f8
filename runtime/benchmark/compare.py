"""Two engines alternately, A B A B: a drift of the machine meets both, and each pair is a ratio."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchline.runtime.benchmark.frames import FramePool
from patchline.runtime.benchmark.measurable import Measurable
from patchline.runtime.benchmark.measure import Say, unsteady
from patchline.runtime.benchmark.stats import percentile, summarize
from patchline.runtime.benchmark.throughput import make_ready
from patchline.runtime.benchmark.timing import Limits, repeat, timed, warm_up
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.engine.base import Wait
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.preprocess import Frame

SPIN_S = 0.1
"""Longer than ONNX Runtime's idle threads spin: they must not meet the other engine's block."""


@dataclass(frozen=True)
class Ratios:
    """B's time over A's, of each pair; below 1 where B is faster.

    Attributes:
        pairs: in the order in which they were measured.
        median: of them.
        q1: the smallest ratio that a quarter of the pairs do not exceed.
        q3: likewise, three quarters.
        agreeing: pairs on the median's side of 1.
    """

    pairs: list[float]
    median: float
    q1: float
    q3: float
    agreeing: int


@dataclass(frozen=True)
class Compared:
    """What was found of two engines.

    Attributes:
        batch: frames in one call.
        blocks_ms: milliseconds of each call, by engine (A, B) and round.
    """

    batch: int
    blocks_ms: tuple[list[list[float]], list[list[float]]]

    def samples_ms(self, which: int) -> list[float]:
        """Every call of A (0) or B (1)."""
        return [time for block in self.blocks_ms[which] for time in block]

    def medians_ms(self, which: int) -> list[float]:
        """Of each block of A (0) or B (1)."""
        return [statistics.median(block) for block in self.blocks_ms[which]]

    def ratios(self) -> Ratios:
        """Pair by pair: a block of B over the block of A just before it."""
        return pair_ratios(self.medians_ms(0), self.medians_ms(1))

    def warnings(self) -> list[str]:
        """What makes the times less sure, as sentences."""
        return unsteady([(name, summarize(self.samples_ms(at))) for at, name in enumerate("AB")])


def compare(
    engines: tuple[Measurable, Measurable],
    pools: tuple[FramePool, FramePool],
    batch: int,
    rounds: int,
    limits: Limits,
    say: Say,
    clock: Clock = SYSTEM_CLOCK,
) -> Compared:
    """Run blocks of calls of A and B in turn.

    Args:
        engines: A and B, both open.
        pools: the frames of each.
        batch: frames in one call.
        rounds: blocks of each; all blocks of an engine together keep the limits.
        limits: of each engine.
        say: told of each round before it begins.
        clock: of everything.

    Raises:
        ConfigurationError: fewer than two rounds.
        EngineError: an engine failed.
    """
    if rounds < 2:
        raise ConfigurationError(f"the number of rounds is {rounds}, expected 2 or more")
    pauses, calls = [_pause(engine, clock) for engine in engines], []
    for engine, pool, pause in zip(engines, pools, pauses, strict=True):
        feed = pool.feed(batch)
        make_ready(engine, feed)
        calls.append(_call(engine, feed))
        warm_up(calls[-1], limits.warm_up_ms, clock)
        pause()
    blocks: tuple[list[list[float]], list[list[float]]] = ([], [])
    iterations, seconds = math.ceil(limits.iterations / rounds), limits.duration_s / rounds
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        for call, pause, found in zip(calls, pauses, blocks, strict=True):
            call()  # what slept or was driven out of caches meanwhile
            found.append(repeat(timed(call, clock), iterations, seconds, clock).samples)
            pause()
    return Compared(batch, blocks)


def pair_ratios(first: Sequence[float], second: Sequence[float]) -> Ratios:
    """The second over the first, pair by pair.

    The median and the quartiles are nearest ranks of the ratios, but that the median of an even
    number is the mean of the middle two.
    """
    pairs = [b / a for a, b in zip(first, second, strict=True)]
    ordered = sorted(pairs)
    median = statistics.median(ordered)
    agreeing = sum(_side(ratio) == _side(median) for ratio in pairs)
    return Ratios(pairs, median, percentile(ordered, 25), percentile(ordered, 75), agreeing)


def _side(ratio: float) -> int:
    return (ratio > 1) - (ratio < 1)


def _call(engine: Measurable, feed: Callable[[], Frame]) -> Callable[[], object]:
    return lambda: engine.infer(feed())


def _pause(engine: Measurable, clock: Clock) -> Callable[[], None]:
    seconds = SPIN_S if engine.facts.wait is Wait.SPIN else 0.0
    nothing = threading.Event()

    def pause() -> None:
        if seconds:
            clock.wait(nothing, seconds)

    return pause
