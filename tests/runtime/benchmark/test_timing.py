"""The loop: a warm-up that does not count, then enough calls and enough time."""

from __future__ import annotations

import contextlib
import math
import os
import signal

import pytest

from patchline.runtime.benchmark.timing import Limits, collect, repeat, timed, warm_up
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.interrupt import remembered_interrupts

from ..fakes import FakeClock


class Work:
    """Takes so long by the clock; slower for the first calls."""

    def __init__(self, clock: FakeClock, seconds: float, slow: int = 0) -> None:
        self.clock, self.seconds, self.slow = clock, seconds, slow
        self.calls = 0

    def __call__(self) -> None:
        self.clock.time_s += self.seconds * (10 if self.calls < self.slow else 1)
        self.calls += 1


class TestLimits:
    def test_the_defaults_are_trtexecs(self) -> None:
        assert Limits() == Limits(warm_up_ms=200.0, iterations=10, duration_s=3.0)

    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
    def test_refuses_a_warm_up_that_cannot_be(self, value: float) -> None:
        with pytest.raises(ConfigurationError, match="the warm-up in milliseconds is"):
            Limits(warm_up_ms=value)

    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_a_duration_that_cannot_be(self, value: float) -> None:
        with pytest.raises(ConfigurationError, match="the duration in seconds is"):
            Limits(duration_s=value)

    def test_refuses_no_iterations(self) -> None:
        with pytest.raises(ConfigurationError, match="iterations is 0, expected 1 or more"):
            Limits(iterations=0)

    def test_no_warm_up_can_be(self) -> None:
        assert Limits(warm_up_ms=0.0).warm_up_ms == 0.0


class TestCollect:
    def test_slow_first_calls_do_not_count(self) -> None:
        clock = FakeClock()
        work = Work(clock, 0.0625, slow=2)
        run = collect(timed(work, clock), Limits(1000.0, 3, 0.5), clock)
        assert run.samples == [62.5] * 8
        assert run.elapsed_s == 0.5
        assert work.calls == 2 + 8

    def test_a_slow_engine_has_enough_calls(self) -> None:
        clock = FakeClock()
        run = collect(timed(Work(clock, 4.0), clock), Limits(0.0, 10, 3.0), clock)
        assert run.samples == [4000.0] * 10
        assert run.elapsed_s == 40.0

    def test_a_fast_engine_is_measured_long_enough(self) -> None:
        clock = FakeClock()
        run = collect(timed(Work(clock, 2**-10), clock), Limits(0.0, 10, 3.0), clock)
        assert len(run.samples) == 3 * 2**10
        assert run.elapsed_s == 3.0

    def test_a_warm_up_of_nothing_calls_nothing(self) -> None:
        clock = FakeClock()
        work = Work(clock, 1.0)
        warm_up(work, 0.0, clock)
        assert work.calls == 0

    def test_what_a_call_gives_is_kept_in_order(self) -> None:
        clock = FakeClock(step_s=0.25)
        given = iter(range(100))
        assert repeat(lambda: next(given), 5, 0.5, clock).samples == [0, 1, 2, 3, 4]

    def test_an_error_ends_it(self) -> None:
        def fail() -> None:
            raise ConfigurationError("no more")

        with pytest.raises(ConfigurationError, match="no more"):
            collect(fail, Limits(), FakeClock())

    def test_an_interrupt_that_a_library_dropped_ends_it(self) -> None:
        calls = []

        def swallow() -> None:
            calls.append(1)
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

        with remembered_interrupts(), pytest.raises(KeyboardInterrupt):
            repeat(swallow, 10, 1.0, FakeClock(step_s=0.01))
        assert len(calls) == 1
