"""The watchdog: who is restarted when, how often, and what is said when that does not help."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.line.watchdog import Heartbeat, Watchdog

from .fakes import NOON, FakeClock
from .scripted import eventually


class Bench:
    """A watchdog over one stage, ``capture``, that may be late after ten seconds."""

    def __init__(self, *, can_restart: bool = True, **options: Any) -> None:
        self.clock = FakeClock()
        self.beat_s = 0.0
        self.restarts: list[str] = []
        self.wedged: list[tuple[str, str]] = []
        self.watchdog = Watchdog(
            lambda *told: self.wedged.append(told), clock=self.clock, **options
        )
        restart = self.restarts.append if can_restart else None
        self.watchdog.register("capture", lambda: self.beat_s, 10.0, restart)

    def pass_s(self, seconds: int, *, beats: bool = False) -> None:
        """Let time pass, with a look each second."""
        for _ in range(seconds):
            self.clock.time_s += 1.0
            if beats:
                self.beat_s = self.clock.time_s
            self.watchdog.check()


def test_a_stage_that_beats_is_left_alone() -> None:
    bench = Bench()
    bench.pass_s(1000, beats=True)
    assert (bench.restarts, bench.wedged) == ([], [])
    assert bench.watchdog.healthy


def test_a_stage_past_its_limit_is_restarted_and_given_its_limit_again() -> None:
    bench = Bench()
    bench.pass_s(10)
    assert bench.restarts == []
    bench.pass_s(1)
    assert bench.restarts == ["capture gave no sign of life for 11 s"]
    bench.pass_s(10)
    assert len(bench.restarts) == 1
    bench.pass_s(1)
    assert len(bench.restarts) == 2
    assert bench.watchdog.healthy


def test_past_its_budget_a_stage_is_wedged_and_that_is_told_once() -> None:
    bench = Bench()
    bench.pass_s(65)
    assert len(bench.restarts) == 5
    assert bench.watchdog.healthy
    bench.pass_s(500)
    assert len(bench.restarts) == 5
    assert not bench.watchdog.healthy
    [(name, sentence)] = bench.wedged
    assert name == "capture"
    assert sentence == (
        "capture gave no sign of life for 11 s, after 5 restarts within 60 minutes: the process "
        "must be restarted"
    )


def test_the_budget_comes_back_with_time() -> None:
    bench = Bench(budget=1, within_s=100.0)
    bench.pass_s(11)
    bench.pass_s(120, beats=True)
    bench.pass_s(11)
    assert len(bench.restarts) == 2
    assert bench.wedged == []


def test_a_stage_that_cannot_be_restarted_is_wedged_at_once() -> None:
    bench = Bench(can_restart=False)
    bench.pass_s(11)
    [(_, sentence)] = bench.wedged
    assert sentence.endswith("cannot be restarted by itself: the process must be")
    assert not bench.watchdog.healthy


def test_a_wedged_stage_that_comes_back_is_healthy_and_may_be_told_of_again() -> None:
    bench = Bench(can_restart=False)
    bench.pass_s(100)
    bench.pass_s(5, beats=True)
    assert bench.watchdog.healthy
    bench.pass_s(11)
    assert len(bench.wedged) == 2


def test_each_stage_has_its_own_budget() -> None:
    bench = Bench(budget=2)
    others: list[str] = []
    bench.watchdog.register("mqtt", lambda: 0.0, 30.0, others.append)
    bench.pass_s(100)
    assert len(bench.restarts) == 2
    assert len(others) == 2
    assert [name for name, _ in bench.wedged] == ["capture", "mqtt"]


def test_a_stage_that_has_ended_is_watched_no_longer() -> None:
    bench = Bench(can_restart=False)
    bench.pass_s(100)
    bench.watchdog.unregister("capture")
    assert bench.watchdog.healthy
    bench.pass_s(100)
    assert len(bench.wedged) == 1


def test_after_the_whole_process_was_stopped_every_stage_gets_its_limit_again() -> None:
    bench = Bench()
    bench.pass_s(5, beats=True)
    bench.clock.time_s += 3600  # SIGSTOP, a debugger, a frozen container
    assert not bench.watchdog.healthy
    bench.watchdog.check()
    assert bench.watchdog.healthy
    bench.pass_s(10)
    assert bench.restarts == []
    bench.pass_s(1)
    assert len(bench.restarts) == 1


def test_a_watchdog_that_does_not_look_is_not_healthy() -> None:
    bench = Bench()
    bench.clock.time_s += 10
    assert bench.watchdog.healthy
    bench.clock.time_s += 1
    assert not bench.watchdog.healthy


def test_a_restart_that_fails_uses_its_budget_and_leaves_the_others_watched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(budget=0)

    def fail(reason: str) -> None:
        raise OSError("no way")

    bench.watchdog = Watchdog(lambda *told: bench.wedged.append(told), clock=bench.clock, budget=1)
    bench.watchdog.register("first", lambda: 0.0, 10.0, fail)
    bench.watchdog.register("second", lambda: 0.0, 10.0, bench.restarts.append)
    bench.pass_s(30)
    assert len(bench.restarts) == 1
    assert [name for name, _ in bench.wedged] == ["first", "second"]
    assert "look at first failed" in caplog.text


def test_a_stage_that_cannot_say_whether_it_lives_counts_as_silent() -> None:
    bench = Bench()

    def fail() -> float:
        raise RuntimeError("oh")

    bench.watchdog.register("broken", fail, 10.0, None)
    bench.pass_s(11, beats=True)
    assert [name for name, _ in bench.wedged] == ["broken"]


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=40))
def test_no_stage_is_ever_restarted_more_often_than_its_budget_allows(
    pieces: list[tuple[int, bool]],
) -> None:
    bench = Bench(budget=3, within_s=60.0)
    restarted_s: list[float] = []
    bench.watchdog.unregister("capture")
    bench.watchdog.register(
        "capture",
        lambda: bench.beat_s,
        10.0,
        lambda reason: restarted_s.append(bench.clock.time_s),
    )
    for seconds, beats in pieces:
        bench.pass_s(seconds, beats=beats)
    for start in restarted_s:
        assert sum(start <= at <= start + 60.0 for at in restarted_s) <= 3
    assert all(late - early > 10 for early, late in itertools.pairwise(restarted_s))


def test_idling_is_a_sign_of_life_and_long_work_is_none() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(clock)
    clock.time_s = 100.0
    assert heartbeat() == 100.0
    with heartbeat.busy():
        clock.time_s = 150.0
        assert heartbeat() == 100.0
    assert heartbeat() == 150.0
    with pytest.raises(ValueError, match="oh"), heartbeat.busy():
        raise ValueError("oh")
    clock.time_s = 200.0
    assert heartbeat() == 200.0


class PacedClock:
    """Each wait of the watchdog's thread is one permit of the test's."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.permits = threading.Semaphore(0)

    def monotonic(self) -> float:
        return self.time_s

    def now(self) -> datetime:
        return NOON

    def wait(self, event: threading.Event, seconds: float) -> bool:
        while not event.is_set():
            if self.permits.acquire(timeout=0.01):
                self.time_s += seconds
                return event.is_set()
        return True


def test_its_thread_looks_once_a_second_until_it_is_closed() -> None:
    clock, restarts = PacedClock(), list[str]()
    watchdog = Watchdog(lambda *told: None, clock=clock)
    watchdog.register("capture", lambda: 0.0, 10.0, restarts.append)
    watchdog.start()
    clock.permits.release(10)
    eventually(lambda: clock.time_s == 10.0)
    assert restarts == []
    clock.permits.release()
    eventually(lambda: len(restarts) == 1)
    watchdog.close()
    watchdog.close()
    assert not watchdog._thread.is_alive()
    assert watchdog._thread.daemon
