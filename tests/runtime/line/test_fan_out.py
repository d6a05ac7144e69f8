"""Every output gets everything, and none holds up the end of another."""

from __future__ import annotations

import threading

import pytest

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.errors import WriteError
from patchline.runtime.line.fan_out import FanOut
from patchline.runtime.outputs.base import OutputClosedError, OutputEndedError
from patchline.runtime.outputs.queued import QueuedOutput

from ..fakes import NOON, FakeClock, FakeOutput, gray, judged_frame
from ..scripted import PATIENCE_S, eventually

FRAME = judged_frame(gray(100))
CHANGE = StateChange("camera1", StreamState.RUNNING, NOON)
FULL = OutputEndedError("the disk is full")


def test_each_output_gets_each_frame_and_notice() -> None:
    first, second = FakeOutput(), FakeOutput()
    outputs = FanOut([QueuedOutput(first, is_lossless=True)], [second])
    outputs.write(FRAME)
    outputs.notify(CHANGE)
    outputs.close()
    for output in (first, second):
        assert (len(output.judged), output.notices, output.closings) == (1, [CHANGE], 1)


def test_the_time_that_handing_over_takes_is_told() -> None:
    clock = FakeClock()

    class Slow(FakeOutput):
        def write(self, judged: object) -> None:
            clock.time_s += 0.25

    written = FanOut([], [Slow()], clock=clock).write(FRAME)
    assert written.verdict.times.output_ms == pytest.approx(250.0)


def test_outputs_that_wait_for_each_other_are_closed_together() -> None:
    both = threading.Barrier(2)

    class Meeting(FakeOutput):
        def close(self) -> None:
            both.wait(PATIENCE_S)
            super().close()

    outputs = [Meeting(), Meeting()]
    FanOut([QueuedOutput(output) for output in outputs]).close()
    assert [output.closings for output in outputs] == [1, 1]


@pytest.mark.parametrize("is_live", [True, False])
def test_a_live_line_goes_on_while_its_only_output_fails(is_live: bool) -> None:
    may_end = threading.Event()

    class Paused(FakeClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            may_end.wait(PATIENCE_S)  # the pause after a failure lasts
            return True

    failing = FakeOutput("log", fails_at=0, error=WriteError("the disk is full"))
    queued = QueuedOutput(failing, clock=Paused())
    outputs = FanOut([queued], is_live=is_live)
    assert outputs.is_open
    outputs.write(FRAME)
    eventually(lambda: queued.is_failing)
    assert outputs.is_open is is_live
    assert (outputs.incomplete, outputs.failing) == (["log"], ["log"])
    if is_live:
        outputs.raise_if_lost()
    else:
        with pytest.raises(WriteError, match="no output is left that works: log"):
            outputs.raise_if_lost()
    may_end.set()
    outputs.close()


def test_an_output_that_failed_once_and_works_again_is_incomplete_and_not_failing() -> None:
    class Once(FakeOutput):
        def write(self, judged: object) -> None:
            error, self._error = self._error, None
            if error is not None:
                raise error

    queued = QueuedOutput(Once("log", error=WriteError("busy")), clock=FakeClock())
    outputs = FanOut([queued])
    outputs.write(FRAME)
    eventually(lambda: queued.failures == 1 and not queued._state.health.is_pausing)
    outputs.write(FRAME)
    eventually(lambda: not queued.is_failing)
    assert (outputs.incomplete, outputs.failing, outputs.is_open) == (["log"], [], True)
    outputs.close()
    assert (outputs.incomplete, outputs.failing) == (["log"], [])


def test_an_output_that_cannot_be_finished_is_failing() -> None:
    queued = [QueuedOutput(FakeOutput("video", close_error=FULL)), QueuedOutput(FakeOutput())]
    outputs = FanOut(queued)
    outputs.close()
    assert (outputs.incomplete, outputs.failing) == (["video"], ["video"])


def test_an_output_that_is_not_finished_in_time_is_failing() -> None:
    may_end = threading.Event()

    class Hanging(FakeOutput):
        def close(self) -> None:
            may_end.wait(PATIENCE_S)

    queued = QueuedOutput(Hanging("video"))
    queued.close(timeout_s=0.05)
    assert FanOut([queued]).failing == ["video"]
    may_end.set()


@pytest.mark.parametrize(
    ("error", "failing"), [(OutputClosedError(), []), (FULL, ["a fake"])], ids=["reader", "disk"]
)
def test_one_output_that_ended_leaves_the_others_open(error: Exception, failing: list[str]) -> None:
    ended, other = FakeOutput(fails_at=0, error=error), FakeOutput("other")
    queued = [QueuedOutput(ended), QueuedOutput(other)]
    outputs = FanOut(queued)
    outputs.write(FRAME)
    eventually(lambda: queued[0].is_closed)
    assert outputs.is_open
    assert outputs.failing == failing
    outputs.raise_if_lost()
    outputs.close()


def test_a_line_without_queues_is_open_and_never_lost() -> None:
    for outputs in (FanOut([]), FanOut([], [FakeOutput()])):
        assert outputs.is_open
        outputs.raise_if_lost()


def test_a_direct_output_keeps_the_line_open_when_all_others_ended() -> None:
    queued = QueuedOutput(FakeOutput(fails_at=0, error=FULL))
    outputs = FanOut([queued], [FakeOutput()])
    outputs.write(FRAME)
    eventually(lambda: queued.is_closed)
    assert outputs.is_open
    outputs.raise_if_lost()
    outputs.close()
