"""One camera of a line: which frames arrive, its states, and how it is opened again."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.states import StreamState
from patchline.runtime.camera.supervised import READ_AHEAD
from patchline.runtime.errors import (
    ConfigurationError,
    FrameError,
    MissingExtraError,
    SourceError,
    SourceOpenError,
)

from .fakes import FakeSource, gray
from .scripted import Bench, ScriptedSource, eventually

CONNECTING, RUNNING, STALLED, RECONNECTING, ENDED, FAILED = StreamState


def test_a_camera_gives_its_newest_frame_and_counts_the_others() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        for index in range(5):
            source.frame(index)
        assert bench.reader.poll() == 4
        assert bench.reader.poll() is None
        source.frame(5)
        assert bench.reader.poll() == 5
        assert (bench.reader.captured, bench.reader.dropped) == (6, 4)
        assert bench.states == [CONNECTING, RUNNING]


def test_a_camera_prepares_only_what_is_taken_and_where_it_is_taken() -> None:
    threads: list[str] = []

    def prepare(frame: CapturedFrame) -> int:
        threads.append(threading.current_thread().name)
        return frame.index

    source = ScriptedSource()
    with Bench(source, prepare=prepare) as bench:
        for index in range(5):
            source.frame(index)
        bench.reader.poll()
    assert threads == [threading.current_thread().name]


def test_a_file_gives_every_frame_in_order_prepared_ahead() -> None:
    threads: set[str] = set()

    def prepare(frame: CapturedFrame) -> int:
        threads.add(threading.current_thread().name)
        return 10 * frame.index

    with Bench(FakeSource([gray(1)] * 50), is_live=False, prepare=prepare) as bench:
        assert bench.poll_until_over() == [10 * index for index in range(50)]
        assert bench.states == [CONNECTING, RUNNING, ENDED]
        assert (bench.reader.captured, bench.reader.dropped) == (50, 0)
        assert bench.reader.error is None
    assert threads == {"capture-left"}


def test_a_file_is_read_ahead_by_a_few_frames_and_no_more() -> None:
    source = FakeSource([gray(1)] * 50)
    with Bench(source, is_live=False) as bench:
        eventually(lambda: bench.reader.captured == READ_AHEAD)
        time.sleep(0.1)  # nobody takes a frame
        assert bench.reader.captured == READ_AHEAD
        assert len(source.given) == READ_AHEAD + 1


def test_a_file_that_fails_gives_the_frames_before_it_first() -> None:
    error = SourceError("cut short")
    with Bench(FakeSource([gray(1)] * 7, error=error), is_live=False) as bench:
        assert bench.poll_until_over() == list(range(7))
        assert bench.states == [CONNECTING, RUNNING, FAILED]
        assert bench.reader.error is error
        assert bench.reader.detail == "cut short"
        assert bench.opened == 1
        assert bench.pass_s(1000) is None
        assert bench.opened == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), SourceOpenError("no such file")])
def test_a_file_that_does_not_open_has_failed(error: Exception) -> None:
    with Bench(error, is_live=False) as bench:
        assert bench.poll_until_over() == []
        assert bench.states == [CONNECTING, FAILED]
        assert bench.reader.error is error


def refuse_frame_2(frame: CapturedFrame) -> int:
    if frame.index == 2:
        raise FrameError("expected 1, 3 or 4 channels, got 2")
    return frame.index


def test_a_file_with_a_frame_that_is_refused_fails_and_names_it() -> None:
    with Bench(FakeSource([gray(1)] * 5), is_live=False, prepare=refuse_frame_2) as bench:
        assert bench.poll_until_over() == [0, 1]
        assert isinstance(bench.reader.error, FrameError)
        expected = "left, frame 2: expected 1, 3 or 4 channels, got 2"
        assert str(bench.reader.error) == bench.reader.detail == expected


def test_a_camera_goes_on_after_a_frame_that_is_refused_and_tells_it_once() -> None:
    def refuse_odd(frame: CapturedFrame) -> int:
        if frame.index % 2:
            raise FrameError("no picture")
        return frame.index

    source = ScriptedSource()
    with Bench(source, prepare=refuse_odd) as bench:
        given = []
        for index in range(6):
            source.frame(index)
            given.append(bench.reader.poll())
        assert given == [0, None, 2, None, 4, None]
        assert bench.reader.refused == 3
        assert bench.states == [CONNECTING, RUNNING, RUNNING]
        assert bench.changes[2].detail == "left, frame 1 was refused: no picture (1 so far)"
        assert bench.reader.detail == "left, frame 5 was refused: no picture (3 so far)"


def test_a_camera_that_does_not_open_is_tried_again_after_the_back_off() -> None:
    source = ScriptedSource()
    error = SourceOpenError("rtsp://***@cam does not open")
    with Bench(error, error, source) as bench:
        bench.poll_until_state(RECONNECTING)
        assert bench.changes[-1].detail.startswith(
            "rtsp://***@cam does not open; attempt 1 to open it again in 0."
        )
        bench.pass_s(0.24)
        assert bench.opened == 1  # the shortest first wait is 0.25 s
        bench.pass_s(0.26)
        eventually(lambda: bench.opened == 2)
        bench.poll_until(lambda: "attempt 2" in bench.reader.detail)
        bench.pass_s(0.49)
        assert bench.opened == 2  # the shortest second wait is 0.5 s
        bench.pass_s(0.52)
        source.frame()
        assert bench.reader.poll() == 0
        assert bench.states == [CONNECTING, RECONNECTING, RUNNING]
        assert bench.reader.detail == "frames come again after 1.5 s"
        assert bench.reader.reopenings == 1


@pytest.mark.parametrize("attempts", [0, 1, 3])
def test_a_camera_fails_after_so_many_attempts_in_a_row(attempts: int) -> None:
    errors = [SourceOpenError(f"closed {number}") for number in range(10)]
    with Bench(*errors, limits=ReconnectLimits(attempts=attempts)) as bench:
        bench.reach_attempt(1 + attempts)
        bench.poll_until_over()
        assert bench.states == [CONNECTING, *[RECONNECTING] * bool(attempts), FAILED]
        assert bench.reader.error is errors[attempts]
        assert not bench.reader.needs_restart
        assert bench.reader.detail.startswith(f"closed {attempts}")
        assert (f"opened again {attempts} times" in bench.reader.detail) == (attempts > 0)
        bench.pass_s(1000)
        assert bench.opened == 1 + attempts


def test_a_camera_is_tried_for_ever_unless_told_otherwise() -> None:
    errors = [SourceOpenError("closed")] * 40
    with Bench(*errors, ScriptedSource()) as bench:
        for number in range(2, 42):
            eventually(lambda: bench.pass_s(30.0) is None and bench.opened >= number)  # noqa: B023
        assert bench.states == [CONNECTING, RECONNECTING]


@pytest.mark.parametrize("error", [ConfigurationError("size"), MissingExtraError("pip install")])
@pytest.mark.parametrize("is_open", [False, True])
def test_what_waiting_does_not_help_against_is_not_tried_again(
    error: Exception, is_open: bool
) -> None:
    source = ScriptedSource()
    with Bench(source if is_open else error) as bench:
        if is_open:
            source.frame()
            source.fail(error)
        bench.poll_until_over()
        assert bench.reader.error is error
        assert bench.states[-1] is FAILED
        bench.pass_s(1000)
        assert bench.opened == 1


@pytest.mark.parametrize("is_error", [False, True])
def test_a_camera_that_is_lost_is_opened_again_and_goes_on_counting(is_error: bool) -> None:
    first, second = ScriptedSource(), ScriptedSource()
    with Bench(first, second) as bench:
        first.frame(0)
        first.frame(7)  # six were unreadable
        first.fail(SourceError("unplugged")) if is_error else first.end()
        assert bench.reader.poll() == 7
        bench.poll_until_state(RECONNECTING)
        says = "unplugged" if is_error else "left: the stream ended"
        assert bench.reader.detail.startswith(f"{says}; attempt 1")
        bench.reach_attempt(2)
        second.frame(0)
        assert bench.reader.poll() == 8
        second.frame(3)
        assert bench.reader.poll() == 11
        assert bench.states == [CONNECTING, RUNNING, RECONNECTING, RUNNING]
        assert bench.reader.reopenings == 1


def test_a_camera_that_may_end_ends() -> None:
    source = ScriptedSource()
    with Bench(source, may_end=True) as bench:
        source.frame()
        source.end()
        assert bench.poll_until_over() == [0]
        assert bench.states == [CONNECTING, RUNNING, ENDED]


def test_a_silent_camera_is_stalled_and_runs_again_when_a_frame_comes() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        source.frame(0)
        bench.reader.poll()
        bench.pass_s(4.9)
        assert bench.reader.state is RUNNING
        bench.pass_s(0.2)
        assert bench.changes[-1].state is STALLED
        assert bench.reader.detail == "no frame for 5.1 s"
        bench.pass_s(5.0)
        assert bench.reader.detail == "no frame for 10.1 s"
        source.frame(1)
        assert bench.reader.poll() == 1
        assert bench.states == [CONNECTING, RUNNING, STALLED, RUNNING]
        assert bench.opened == 1


def test_a_camera_that_opens_and_never_gives_a_frame_is_stalled_and_lost() -> None:
    with Bench(ScriptedSource(), ScriptedSource()) as bench:
        attempt = bench.reader._supervisor.attempt
        assert attempt is not None
        eventually(lambda: attempt.is_open)
        bench.pass_s(6)
        bench.pass_s(10)
        assert bench.states == [CONNECTING, STALLED, RECONNECTING]
        bench.reach_attempt(2)


def test_a_wedged_thread_is_left_behind_and_its_late_frames_are_discarded() -> None:
    first, second = ScriptedSource(), ScriptedSource()
    with Bench(first, second) as bench:
        first.frame(0)
        bench.reader.poll()
        first.hang()
        bench.pass_s(6)
        bench.pass_s(10)
        assert bench.states == [CONNECTING, RUNNING, STALLED, RECONNECTING]
        assert bench.reader.detail.startswith("left: no frame came for 16.0 s; attempt 1")
        bench.reach_attempt(2)
        second.frame(0)
        assert bench.reader.poll() == 1
        assert not first.is_closed.is_set()  # only its own thread may close it
        first._steps.put(CapturedFrame(gray(9), 1, bench.clock.now(), 1.0))
        first.may_return.set()
        assert first.is_closed.wait(60)
        assert first.closed_in == "capture-left"
        assert bench.reader.poll() is None
        assert bench.reader.captured == 2
        assert bench.reader.state is RUNNING


def test_a_late_frame_of_a_thread_that_was_given_up_is_not_taken() -> None:
    """The thread is past its look at ``stop`` when it is given up."""
    first, second = ScriptedSource(), ScriptedSource()
    with Bench(first, second) as bench:
        attempt = bench.reader._supervisor.attempt
        assert attempt is not None
        first.frame(0)
        bench.reader.poll()
        bench.reader.reopen("a test")
        bench.reach_attempt(2)
        bench.reader._give_live(attempt, CapturedFrame(gray(9), 1, bench.clock.now(), 1.0))
        assert bench.reader.poll() is None
        assert bench.reader.captured == 1


def test_a_late_frame_after_the_end_is_not_taken() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        attempt = bench.reader._supervisor.attempt
        assert attempt is not None
        bench.reader.close()
        bench.reader._give_live(attempt, CapturedFrame(gray(9), 0, bench.clock.now(), 1.0))
        assert bench.reader.poll() is None
        assert bench.reader.captured == 0


def test_the_numbers_of_frames_rise_even_if_the_source_counts_backwards() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        given = []
        for index in (5, 3, 3, 9):
            source.frame(index)
            given.append(bench.reader.poll())
        assert given == [5, 6, 7, 9]


def test_an_opening_that_does_not_return_is_given_up_and_closed_when_it_does() -> None:
    late, second = ScriptedSource(), ScriptedSource()
    may_open = threading.Event()

    def open_late() -> FrameSource:
        assert may_open.wait(60)
        return late

    with Bench(open_late, second) as bench:
        bench.pass_s(29)
        assert bench.reader.state is CONNECTING
        bench.pass_s(2)
        assert bench.reader.state is RECONNECTING
        assert "its opening did not return within 31.0 s" in bench.reader.detail
        bench.reach_attempt(2)
        may_open.set()
        assert late.is_closed.wait(60)
        second.frame()
        assert bench.reader.poll() == 0


def test_wedged_threads_are_bounded() -> None:
    sources = [ScriptedSource() for _ in range(4)]
    with Bench(*sources, limits=ReconnectLimits(most_wedged=3)) as bench:
        for number, source in enumerate(sources):
            assert not bench.reader.needs_restart
            bench.reach_attempt(number + 1)
            source.frame()
            source.hang()
            bench.reader.poll()
            bench.pass_s(16)
        assert bench.reader.state is FAILED
        assert bench.reader.needs_restart
        assert isinstance(bench.reader.error, SourceError)
        assert "4 of its capture threads hang" in bench.reader.detail
        assert "restart the process" in bench.reader.detail


def test_wedged_threads_that_came_back_do_not_count() -> None:
    sources = [ScriptedSource() for _ in range(6)]
    with Bench(*sources, limits=ReconnectLimits(most_wedged=1)) as bench:
        for number, source in enumerate(sources[:5]):
            bench.reach_attempt(number + 1)
            source.frame()
            source.hang()
            bench.reader.poll()
            bench.pass_s(16)
            source.may_return.set()
            assert source.is_closed.wait(60)
            eventually(lambda: not any(each.is_alive for each in bench.reader._supervisor._wedged))
        bench.reach_attempt(6)
        assert bench.reader.state is RECONNECTING


def test_a_stream_that_dies_after_one_frame_does_not_reset_the_back_off() -> None:
    sources = [ScriptedSource() for _ in range(8)]
    with Bench(*sources) as bench:
        for number, source in enumerate(sources[:7]):
            bench.reach_attempt(number + 1)
            source.frame()
            source.end()
            bench.poll_until(lambda: f"attempt {number + 1} " in bench.reader.detail)  # noqa: B023
        opened = bench.opened
        bench.pass_s(14.9)
        assert bench.opened == opened  # by now it waits for 15 s at least


def test_a_stream_that_ran_for_a_while_resets_the_back_off() -> None:
    first, second, third = (ScriptedSource() for _ in range(3))
    with Bench(first, second, third) as bench:
        first.end()
        bench.poll_until_state(RECONNECTING)
        bench.reach_attempt(2)
        second.frame(0)
        for index in range(1, 6):
            bench.pass_s(2.0)
            second.frame(index)
        second.end()
        bench.poll_until_state(RECONNECTING)
        assert "attempt 1 " in bench.reader.detail


def test_a_slow_camera_is_given_three_of_its_periods() -> None:
    source = ScriptedSource(fps=0.1)
    with Bench(source) as bench:
        source.frame()
        bench.reader.poll()
        bench.pass_s(29)
        assert bench.reader.state is RUNNING
        assert bench.reader.heartbeat_s == bench.clock.monotonic()
        bench.pass_s(2)
        assert bench.reader.state is STALLED
        bench.pass_s(8)
        assert bench.reader.state is STALLED
        bench.pass_s(2)
        assert bench.reader.state is RECONNECTING


def test_the_heartbeat_stands_still_past_the_limit_only() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        source.frame()
        assert bench.reader.heartbeat_s == 0
        bench.clock.time_s = 15.0
        assert bench.reader.heartbeat_s == 15.0
        bench.clock.time_s = 100.0
        assert bench.reader.heartbeat_s == 15.0
        bench.reader.poll()
        bench.reader.poll()
        assert bench.reader.state is RECONNECTING
        assert bench.reader.heartbeat_s == 100.0


def test_the_watchdog_may_have_a_camera_opened_again() -> None:
    first, second = ScriptedSource(), ScriptedSource()
    with Bench(first, second) as bench:
        first.frame()
        first.hang()
        bench.reader.poll()
        bench.reader.reopen("no sign of life for 60 s")
        assert bench.states == [CONNECTING, RUNNING, RECONNECTING]
        assert bench.reader.detail.startswith("left: no sign of life for 60 s; attempt 1")
        bench.reach_attempt(2)
        second.frame()
        assert bench.reader.poll() == 1
        first.may_return.set()


def test_the_watchdog_lets_a_file_fail_after_the_frames_it_gave() -> None:
    source = ScriptedSource()
    with Bench(source, is_live=False) as bench:
        source.frame(0)
        source.frame(1)
        source.hang()
        bench.reader.reopen("no sign of life for 60 s")
        assert bench.poll_until_over() == [0, 1]
        assert bench.reader.state is FAILED
        assert str(bench.reader.error) == "left: no sign of life for 60 s"
        source.may_return.set()


def test_a_file_that_was_given_up_has_failed_even_if_its_thread_comes_back() -> None:
    source = ScriptedSource()
    with Bench(source, is_live=False) as bench:
        attempt = bench.reader._supervisor.attempt
        assert attempt is not None
        source.frame()
        source.hang()
        bench.reader.reopen("no sign of life for 60 s")
        source.may_return.set()
        assert source.is_closed.wait(60)
        eventually(lambda: not attempt.is_alive)
        assert bench.poll_until_over() == [0]
        assert bench.reader.state is FAILED


def test_an_error_of_a_library_shows_no_credentials() -> None:
    secret = RuntimeError("cannot read rtsp://admin:secret@cam/1")
    plain = OSError(24, "Too many open files")
    with Bench(secret, plain) as bench:
        bench.poll_until_state(RECONNECTING)
        assert bench.reader.detail.startswith("RuntimeError; attempt 1")
        bench.reach_attempt(2)
        bench.poll_until(lambda: "attempt 2" in bench.reader.detail)
        assert bench.reader.detail.startswith("OSError: [Errno 24] Too many open files; attempt")


def test_closing_ends_it_once() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        source.frame()
        bench.reader.poll()
        source.frame(1)
        bench.reader.close()
        bench.reader.close()
        assert source.is_closed.is_set()
        assert bench.reader.poll() is None
        assert bench.reader.is_over
        assert bench.states == [CONNECTING, RUNNING, ENDED]
        bench.reader.reopen("too late")
        bench.pass_s(1000)
        assert bench.opened == 1
        assert bench.states[-1] is ENDED


def test_closing_does_not_wait_for_a_wedged_thread_for_ever() -> None:
    source = ScriptedSource()
    with Bench(source) as bench:
        source.frame()
        source.hang()
        bench.reader.close()
        assert not source.is_closed.is_set()
        source.may_return.set()
        assert source.is_closed.wait(60)


@pytest.mark.parametrize("is_live", [True, False])
def test_closing_stops_a_source_that_is_faster_than_its_reader(is_live: bool) -> None:
    source = FakeSource([gray(1)], is_live=is_live, is_endless=True)
    with Bench(source, is_live=is_live) as bench:
        eventually(lambda: bench.reader.captured > 2)
    assert source.is_closed.wait(60)


def test_a_failed_camera_stays_failed_when_it_is_closed() -> None:
    with Bench(ConfigurationError("size")) as bench:
        bench.poll_until_over()
    assert bench.states == [CONNECTING, FAILED]


def test_a_reader_that_was_closed_is_not_started() -> None:
    bench = Bench(ScriptedSource())
    assert bench.reader.poll() is None
    bench.reader.close()
    bench.reader.start()
    assert bench.opened == 0
    assert bench.states == [ENDED]


def test_a_camera_is_lost_when_the_machine_has_no_thread_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench = Bench(ScriptedSource())
        bench.reader.start()
        bench.reader.poll()
        assert bench.reader.state is RECONNECTING
        assert "no thread could be started" in bench.reader.detail
    bench.reach_attempt(1)
    bench.reader.close()


@pytest.mark.parametrize("is_live", [True, False])
def test_whoever_waits_is_woken_by_frames_and_by_the_end(is_live: bool) -> None:
    source = ScriptedSource()
    woken: list[Any] = []
    bench = Bench(source, is_live=is_live, may_end=True)

    def consume() -> None:
        while not bench.reader.is_over:
            with bench.changed:
                while not bench.reader.is_ready:
                    assert bench.changed.wait(60)
            woken.append(bench.reader.poll())

    with bench:
        consumer = threading.Thread(target=consume)
        consumer.start()
        for index in range(3):
            source.frame(index)
            eventually(lambda: index in woken)  # noqa: B023
        source.end()
        consumer.join(60)
        assert not consumer.is_alive()
    assert [frame for frame in woken if frame is not None] == [0, 1, 2]


def test_unreadable_pictures_are_counted_over_all_openings() -> None:
    first, second = ScriptedSource(), ScriptedSource()
    first.skipped_unreadable, second.skipped_unreadable = 3, 4
    with Bench(first, second) as bench:
        assert bench.reader.skipped_unreadable in (0, 3)
        first.frame()
        assert bench.reader.skipped_unreadable == 3
        first.end()
        bench.poll_until_state(RECONNECTING)
        assert bench.reader.skipped_unreadable == 3
        bench.reach_attempt(2)
        second.frame()
        assert bench.reader.skipped_unreadable == 7


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("frames"), st.integers(1, 4)),
        st.tuples(st.just("gap"), st.integers(2, 5)),
        st.tuples(st.just("poll"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 6, 16, 31])),
        st.sampled_from([("end", 0), ("fail", 0), ("hang", 0), ("return", 0), ("reopen", 0)]),
    ),
    max_size=30,
)


class AnyOrder:
    """Does what hypothesis thinks of to a camera, and keeps what came out of it."""

    def __init__(self) -> None:
        self.sources: list[ScriptedSource] = []
        self.hung: set[int] = set()
        self.given: list[int] = []
        self.index = 0
        limits = ReconnectLimits(most_wedged=1000)
        self.bench = Bench(*[self._open] * 1000, limits=limits)

    def run(self, steps: list[tuple[str, float]]) -> None:
        with self.bench:
            for step, value in steps:
                self._keep(self._do(step, value))
                assert len(self.bench.reader._waiting) <= 1
            self._keep(self.bench.reader.poll())
            for source in self.sources:
                source.may_return.set()

    def _open(self) -> FrameSource:
        self.index = 0
        self.sources.append(ScriptedSource())
        return self.sources[-1]

    def _do(self, step: str, value: float) -> Any:
        if step == "poll":
            return self.bench.reader.poll()
        if step == "wait":
            return self.bench.pass_s(value)
        if step == "reopen":
            return self.bench.reader.reopen("a test")
        if step == "return":
            for source in self.sources:
                source.may_return.set()
            return None
        source = self._usable()
        if source is not None:
            self._drive(source, step, int(value))
        return None

    def _usable(self) -> ScriptedSource | None:
        attempt = self.bench.reader._supervisor.attempt
        if attempt is None:
            return None
        eventually(lambda: attempt.is_open)
        source = attempt.source
        assert isinstance(source, ScriptedSource)
        is_hung = id(source) in self.hung and not source.may_return.is_set()
        return None if is_hung or attempt.is_done or source.is_closed.is_set() else source

    def _drive(self, source: ScriptedSource, step: str, value: int) -> None:
        actions: dict[str, Callable[[], None]] = {
            "end": source.end,
            "fail": lambda: source.fail(SourceError("unplugged")),
            "hang": source.hang,
        }
        if step == "hang":
            self.hung.add(id(source))
        if step in actions:
            actions[step]()
            return
        for _ in range(value if step == "frames" else 1):
            self.index += value if step == "gap" else 1
            source.frame(self.index - 1)

    def _keep(self, frame: Any) -> None:
        if frame is not None:
            self.given.append(frame)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_in_whatever_order_things_happen_frames_rise_and_none_is_lost_uncounted(
    steps: list[tuple[str, float]],
) -> None:
    run = AnyOrder()
    run.run(steps)
    reader = run.bench.reader
    assert run.given == sorted(set(run.given))
    assert len(run.given) + reader.dropped == reader.captured
    states = run.bench.states
    assert all(before is not after for before, after in itertools.pairwise(states))
    assert FAILED not in states
