"""Outputs behind queues: order, bounds, failures, threads that are stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.base import OutputClosedError, OutputEndedError
from patchline.runtime.outputs.queue_state import LONGEST_PAUSE_S
from patchline.runtime.outputs.queued import MOST_ABANDONED, QueuedOutput
from patchline.runtime.verdict import JudgedFrame

from ..fakes import FakeClock
from .given import Told, event, frame, wait_until

A_FRAME = frame()


class Recorder:
    """Takes everything into one list; waits at each call while ``gate`` is closed."""

    name = "a recorder"

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.errors: list[Exception | None] = []
        self.closings = 0

    def write(self, judged: JudgedFrame) -> None:
        self._take(judged.verdict.frame)

    def notify(self, notice: Notice) -> None:
        assert isinstance(notice, Event)
        self._take(notice.id)

    def close(self) -> None:
        self.closings += 1

    def _take(self, content: Any) -> None:
        self.threads.add(threading.get_ident())
        self.entered.release()
        assert self.gate.wait(20)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.taken.append(content)


@contextmanager
def stuck(output: Recorder, queued: QueuedOutput) -> Iterator[None]:
    """The thread is within its first call."""
    output.gate.clear()
    queued.write(A_FRAME)
    assert output.entered.acquire(timeout=20)
    yield
    output.gate.set()


def test_all_is_given_in_order_from_one_thread_that_is_not_the_callers() -> None:
    output = Recorder()
    queued = QueuedOutput(output, is_lossless=True, size=4)
    for index in range(50):
        queued.write(frame(index))
    queued.notify(event(3))
    queued.close()
    assert output.taken == [*range(50), f"{3:032x}"]
    assert (queued.written, queued.dropped_frames, queued.dropped_notices) == (51, 0, 0)
    assert len(output.threads) == 1
    assert threading.get_ident() not in output.threads
    assert output.closings == 1
    assert queued.name == "a recorder"


def test_a_live_line_never_waits_and_loses_the_oldest_frames() -> None:
    output = Recorder()
    queued = QueuedOutput(output, size=3)
    with stuck(output, queued):
        for index in range(1, 101):
            queued.write(frame(index))
        assert queued.depth == 3
    queued.close()
    assert output.taken == [0, 98, 99, 100]
    assert (queued.written, queued.dropped_frames) == (4, 97)


def test_notices_push_frames_out_and_only_notices_push_notices_out() -> None:
    output = Recorder()
    queued = QueuedOutput(output, size=3)
    with stuck(output, queued):
        queued.write(frame(1))
        queued.notify(event(1))
        queued.write(frame(2))
        queued.notify(event(2))
        queued.write(frame(3))
        queued.notify(event(3))
        queued.write(frame(4))  # no room: nothing but notices
        assert (queued.dropped_frames, queued.dropped_notices) == (4, 0)
        queued.notify(event(4))
        assert (queued.dropped_frames, queued.dropped_notices) == (4, 1)
    queued.close()
    assert output.taken == [0, *(f"{number:032x}" for number in (2, 3, 4))]


def test_a_line_of_files_waits_for_room() -> None:
    output = Recorder()
    queued = QueuedOutput(output, size=1, is_lossless=True)
    with stuck(output, queued):
        queued.write(frame(1))
        giving = threading.Thread(target=queued.write, args=(frame(2),), daemon=True)
        giving.start()
        giving.join(0.2)
        assert giving.is_alive()
    giving.join(20)
    queued.close()
    assert output.taken == [0, 1, 2]


def test_patience_with_a_stuck_output_ends_and_it_may_come_back() -> None:
    output, told, clock = Recorder(), Told(), FakeClock()
    queued = QueuedOutput(
        output, size=2, is_lossless=True, clock=clock, on_failure=told, patience_s=30.0
    )
    with stuck(output, queued):
        for index in range(1, 8):
            queued.write(frame(index))
        assert clock.time_s == 30.0  # waited once, not at each frame
        assert (queued.failures, queued.is_failing) == (1, True)
        assert queued.dropped_frames == 5
    queued.close()
    assert output.taken == [0, 6, 7]
    assert not queued.is_failing
    assert told.sentences == [
        "has not moved for 30 s; the inspection goes on without it, and what it misses is counted",
        "works again; 5 records were dropped meanwhile",
    ]


def test_a_failure_is_told_once_and_tried_again_later_and_later() -> None:
    output, told, clock = Recorder(), Told(), FakeClock()
    output.errors = [WriteError("the disk is full")] * 9
    queued = QueuedOutput(output, clock=clock, on_failure=told)
    for count in range(1, 10):
        queued.write(A_FRAME)
        wait_until(lambda count=count: queued.failures == count and len(clock.waits_s) == count)
        wait_until(lambda: not queued._state.health.is_pausing)
    assert clock.waits_s == [1, 2, 4, 8, 16, 32, 60, 60, LONGEST_PAUSE_S]
    assert queued.is_failing
    queued.write(A_FRAME)
    wait_until(lambda: queued.written == 1)
    assert not queued.is_failing
    queued.close()
    assert told.all == [
        ("a recorder", "the disk is full. Frames are dropped, and it is tried again"),
        ("a recorder", "works again; 9 records were dropped meanwhile"),
    ]


class HeldClock(FakeClock):
    """A pause lasts until the test lets it end."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits_s.append(seconds)
        assert self.go_on.wait(20)
        self.go_on.clear()
        return event.is_set()


@pytest.mark.parametrize("is_lossless", [False, True])
def test_in_a_pause_frames_are_dropped_and_notices_kept(is_lossless: bool) -> None:
    output, clock = Recorder(), HeldClock()
    output.errors = [WriteError("no"), None]
    queued = QueuedOutput(output, size=3, is_lossless=is_lossless, clock=clock)
    queued.notify(event(1))
    wait_until(lambda: len(clock.waits_s) == 1)
    for index in range(10):
        queued.write(frame(index))  # a lossless line does not wait for it either
    queued.notify(event(2))
    assert queued.dropped_frames == 10
    clock.go_on.set()
    queued.close()
    assert output.taken == [f"{1:032x}", f"{2:032x}"]


def test_any_exception_of_an_output_is_a_failure_that_is_named() -> None:
    output, told = Recorder(), Told()
    output.errors = [ZeroDivisionError("division by zero")]
    queued = QueuedOutput(output, clock=FakeClock(), on_failure=told)
    queued.write(A_FRAME)
    wait_until(lambda: queued.failures == 1)
    wait_until(lambda: not queued._state.health.is_pausing)
    queued.write(A_FRAME)
    queued.close()
    assert queued.written == 1
    assert told.sentences[0].startswith("failed with ZeroDivisionError: division by zero")


def test_a_notice_that_breaks_the_output_each_time_does_not_block_the_others() -> None:
    output = Recorder()
    output.errors = [KeyError("x")] * 3
    queued = QueuedOutput(output, clock=FakeClock())
    queued.notify(event(1))
    queued.notify(event(2))
    wait_until(lambda: queued.written == 1)
    queued.close()
    assert output.taken == [f"{2:032x}"]
    assert (queued.dropped_notices, queued.failures) == (1, 3)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OutputClosedError("gone"), None),
        (OutputEndedError("the disk is full"), "the disk is full. It is not tried again"),
    ],
)
def test_an_output_that_is_over_is_closed_and_drops(error: Exception, sentence: str | None) -> None:
    output, told = Recorder(), Told()
    output.errors = [error]
    queued = QueuedOutput(output, is_lossless=True, size=1, on_failure=told)
    queued.write(A_FRAME)
    wait_until(lambda: queued.is_closed)
    wait_until(lambda: output.closings == 1)
    for index in range(5):
        queued.write(frame(index))
    queued.close()
    assert (output.taken, queued.dropped_frames, output.closings) == ([], 6, 1)
    assert told.sentences == ([] if sentence is None else [sentence])


def test_closing_is_bounded_and_tells_what_was_left() -> None:
    output, told = Recorder(), Told()
    queued = QueuedOutput(output, on_failure=told)
    output.gate.clear()
    for index in range(4):
        queued.write(frame(index))
    assert output.entered.acquire(timeout=20)
    begun = time.monotonic()
    queued.close(0.05)
    queued.close(0.05)
    assert time.monotonic() - begun < 10
    assert told.sentences == ["was not finished within 0.05 s: 4 records were dropped"]
    assert (queued.written, queued.dropped_frames) == (0, 4)
    output.gate.set()  # the call comes back after all: that changes no count
    wait_until(lambda: output.closings == 1)
    assert (queued.written, queued.dropped_frames) == (0, 4)


def test_an_error_at_closing_is_told() -> None:
    class Failing(Recorder):
        def close(self) -> None:
            raise WriteError("holds 3 of 4 frames")

    told = Told()
    queued = QueuedOutput(Failing(), on_failure=told)
    queued.close()
    assert (told.sentences, queued.failures) == (["holds 3 of 4 frames"], 1)


def test_outputs_that_ignore_frames_are_not_given_any() -> None:
    class Deaf(Recorder):
        ignores_frames = True

    output = Deaf()
    queued = QueuedOutput(output)
    queued.write(A_FRAME)
    queued.notify(event(1))
    queued.close()
    assert (output.taken, queued.written, queued.dropped_frames) == ([f"{1:032x}"], 1, 0)


def test_the_heartbeat_stands_still_only_within_a_call() -> None:
    output, clock = Recorder(), FakeClock()
    queued = QueuedOutput(output, clock=clock)
    clock.time_s = 5.0
    assert queued.heartbeat_s == 5.0
    with stuck(output, queued):
        clock.time_s = 99.0
        assert queued.heartbeat_s == 5.0
    wait_until(lambda: queued.written == 1)
    assert queued.heartbeat_s == 99.0
    assert not queued.restart("for no reason")  # nothing is stuck
    queued.close()


# A thread that is stuck


def test_without_a_way_to_open_it_again_a_stuck_output_is_left_alone() -> None:
    output = Recorder()
    queued = QueuedOutput(output, size=1, is_lossless=True)
    with stuck(output, queued):
        queued.write(frame(1))
        assert not queued.restart("stuck for 60 s")
        for index in range(2, 5):
            queued.write(frame(index))  # no waiting for it
        assert queued.is_failing
    queued.close()
    assert output.taken == [0, 4]
    assert len(output.threads) == 1


def test_a_stuck_output_is_opened_again_and_the_old_one_closed_when_it_comes_back() -> None:
    old, new, told = Recorder(), Recorder(), Told()
    queued = QueuedOutput(old, on_failure=told, reopen=lambda: new)
    with stuck(old, queued):
        queued.write(frame(1))
        assert queued.restart("stuck for 60 s")
        wait_until(lambda: new.taken == [1])
        assert old.closings == 0
    wait_until(lambda: old.closings == 1)
    queued.write(frame(2))
    queued.close()
    assert new.taken == [1, 2]
    assert (queued.written, queued.dropped_frames) == (2, 1)  # what was in hand is not counted on
    assert new.closings == 1
    assert told.sentences == ["was restarted: stuck for 60 s"]


def test_an_output_whose_call_returns_while_another_is_opened_goes_on() -> None:
    old, new = Recorder(), Recorder()

    def reopen() -> Recorder:
        old.gate.set()
        wait_until(lambda: queued.written == 1)
        return new

    queued = QueuedOutput(old, reopen=reopen)
    with stuck(old, queued):
        assert not queued.restart("stuck")
    queued.write(frame(1))
    queued.close()
    assert (old.taken, new.taken) == ([0, 1], [])
    assert (old.closings, new.closings) == (1, 1)
    assert (queued.written, queued.dropped_frames) == (2, 0)


def test_a_reentrant_output_is_shared_with_a_new_thread_and_closed_once() -> None:
    class Reentrant(Recorder):
        is_reentrant = True

        def _take(self, content: Any) -> None:
            if content != 0:
                self.taken.append(content)
                return
            super()._take(content)

    output = Reentrant()
    queued = QueuedOutput(output)
    with stuck(output, queued):
        assert queued.restart("stuck")
        queued.write(frame(1))
        wait_until(lambda: output.taken == [1])
    wait_until(lambda: output.taken == [1, 0])
    queued.close()
    assert output.closings == 1
    assert (queued.written, queued.dropped_frames) == (1, 1)


def test_only_so_many_threads_are_left_behind() -> None:
    outputs = [Recorder() for _ in range(MOST_ABANDONED + 2)]
    for output in outputs:
        output.gate.clear()
    rest = iter(outputs[1:])
    queued = QueuedOutput(outputs[0], reopen=lambda: next(rest))
    for output in outputs[:MOST_ABANDONED]:
        queued.write(A_FRAME)
        assert output.entered.acquire(timeout=20)
        assert queued.restart("stuck")
    queued.write(A_FRAME)
    assert outputs[MOST_ABANDONED].entered.acquire(timeout=20)
    assert not queued.restart("stuck")
    for output in outputs:
        output.gate.set()
    queued.close()


def test_an_output_that_cannot_be_opened_again_is_told() -> None:
    def refuse() -> Recorder:
        raise WriteError("no such folder")

    output, told = Recorder(), Told()
    queued = QueuedOutput(output, on_failure=told, reopen=refuse)
    with stuck(output, queued):
        assert not queued.restart("stuck")
    queued.close()
    assert told.sentences == ["cannot be opened again: no such folder"]


def test_a_telling_that_fails_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(name: str, sentence: str) -> None:
        raise BrokenPipeError("stderr is gone")

    output = Recorder()
    output.errors = [WriteError("the disk is full")]
    queued = QueuedOutput(output, clock=FakeClock(), on_failure=refuse)
    queued.write(A_FRAME)
    wait_until(lambda: queued.failures == 1)
    wait_until(lambda: not queued._state.health.is_pausing)
    queued.write(A_FRAME)
    wait_until(lambda: queued.written == 1)
    queued.close()
    assert "a recorder: the disk is full" in caplog.text


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="size 0, expected at least 1"):
        QueuedOutput(Recorder(), size=0)


@settings(max_examples=60, deadline=None)
@given(
    is_frame=st.lists(st.booleans(), max_size=40),
    fails=st.lists(st.booleans(), max_size=40),
    size=st.integers(1, 6),
    is_lossless=st.booleans(),
    pauses=st.sets(st.integers(0, 40), max_size=3),
)
def test_everything_is_written_in_order_or_counted(
    is_frame: list[bool], fails: list[bool], size: int, is_lossless: bool, pauses: set[int]
) -> None:
    class Numbered(Recorder):
        def notify(self, notice: Notice) -> None:
            assert isinstance(notice, Event)
            self._take(int(notice.id, 16))

    output = Numbered()
    output.errors = [WriteError("no") if fail else None for fail in fails]
    queued = QueuedOutput(output, size=size, is_lossless=is_lossless, clock=FakeClock())
    for number, is_this_frame in enumerate(is_frame):
        if number in pauses:
            time.sleep(0.001)
        if is_this_frame:
            queued.write(frame(number))
        else:
            queued.notify(event(number))
    queued.close()
    assert output.taken == sorted(set(output.taken))
    assert queued.written == len(output.taken)
    assert queued.written + queued.dropped_frames + queued.dropped_notices == len(is_frame)
    notices = [number for number, is_this_frame in enumerate(is_frame) if not is_this_frame]
    if len(notices) <= size and not any(fails):
        assert queued.dropped_notices == 0
        assert set(notices) <= set(output.taken)
    assert queued.depth == 0


def test_an_event_that_an_output_of_pictures_ignores_is_no_recovery() -> None:
    class Pictures(Recorder):
        def notify(self, notice: Notice) -> None:
            """Has no use for it."""

    output, told, clock = Pictures(), Told(), FakeClock()
    output.errors = [WriteError("the disk is full")] * 3
    queued = QueuedOutput(output, clock=clock, on_failure=told)
    for count in range(1, 4):
        queued.write(A_FRAME)
        wait_until(lambda count=count: queued.failures == count and len(clock.waits_s) == count)
        wait_until(lambda: not queued._state.health.is_pausing)
        queued.notify(event(count))
        wait_until(lambda count=count: queued.written == count)
        assert queued.is_failing
    assert clock.waits_s == [1, 2, 4]
    queued.write(A_FRAME)
    queued.close()
    assert not queued.is_failing
    assert [sentence.split(";")[0] for sentence in told.sentences] == [
        "the disk is full. Frames are dropped, and it is tried again",
        "works again",
    ]


def test_an_output_that_would_leave_the_process_is_a_failure() -> None:
    class Leaving(Recorder):
        def write(self, judged: JudgedFrame) -> None:
            raise SystemExit(3)

    told = Told()
    queued = QueuedOutput(Leaving(), clock=FakeClock(), on_failure=told)
    queued.write(A_FRAME)
    wait_until(lambda: queued.failures == 1)
    queued.close()
    assert told.sentences[0].startswith("failed with SystemExit: 3")
