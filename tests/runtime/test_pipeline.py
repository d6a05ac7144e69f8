"""The camera loop over fakes: verdicts, times, endings and failures."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

from patchline.runtime.engine import Prediction
from patchline.runtime.errors import EngineError, FrameError, SourceError, WriteError
from patchline.runtime.outputs.base import OutputClosedError
from patchline.runtime.pipeline import Pipeline
from patchline.runtime.preprocess import Frame
from patchline.runtime.verdict import LATENCY_WINDOW, StageTimes, Tally, Verdict

from .fakes import NOON, FakeClock, FakeEngine, FakeOutput, FakeSource, gray

GOOD, BAD = gray(100), gray(250)


def run(images: list[Any], **options: Any) -> tuple[Pipeline, FakeOutput]:
    output = FakeOutput()
    pipeline = Pipeline(FakeSource(images), FakeEngine(), [output], **options)
    pipeline.run()
    return pipeline, output


def test_every_frame_gets_a_verdict() -> None:
    pipeline, output = run([GOOD, BAD, GOOD])
    assert [verdict.frame for verdict in output.verdicts] == [0, 1, 2]
    assert [verdict.anomalous for verdict in output.verdicts] == [False, True, False]
    assert [verdict.score for verdict in output.verdicts] == [100.0, 250.0, 100.0]
    assert {(v.source, v.threshold, v.time) for v in output.verdicts} == {("a fake", 200.0, NOON)}
    assert (pipeline.summary.frames, pipeline.summary.anomalous) == (3, 1)
    assert output.closings == 1


def test_a_score_at_the_threshold_is_anomalous() -> None:
    _, output = run([gray(199), gray(200)])
    assert [verdict.anomalous for verdict in output.verdicts] == [False, True]


def test_another_threshold_may_be_asked_for_even_zero() -> None:
    _, output = run([GOOD], threshold=0.0)
    assert (output.verdicts[0].threshold, output.verdicts[0].anomalous) == (0.0, True)


def test_frames_may_change_size_depth_and_channels_in_mid_stream() -> None:
    kinds = [
        gray(100),
        gray(100, 480, 640),
        np.full((50, 70), 100, np.uint8),
        np.full((50, 70, 1), 100, np.uint8),
        np.full((32, 32, 4), 100, np.uint8),
        np.full((7, 900), 100 * 257, np.uint16),
    ]
    _, output = run(kinds)
    assert [verdict.score for verdict in output.verdicts] == [100.0] * len(kinds)


def test_a_frame_that_is_no_picture_is_named() -> None:
    with pytest.raises(FrameError, match=r"a fake, frame 1: expected 8- or 16-bit.*float32"):
        run([GOOD, np.zeros((4, 4, 3), np.float32)])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_frame(score: float) -> None:
    class Broken(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            found = super().infer(frames)
            return Prediction(np.array([score], np.float32), found.anomaly_map, found.influence_map)

    output = FakeOutput()
    with pytest.raises(EngineError, match=rf"a fake, frame 0: .*score {score}"):
        Pipeline(FakeSource([GOOD]), Broken(), [output]).run()
    assert (output.judged, output.closings) == ([], 1)


def test_it_ends_after_max_frames() -> None:
    source = FakeSource([GOOD], is_endless=True)
    pipeline = Pipeline(source, FakeEngine(), max_frames=7)
    assert pipeline.run().frames == 7
    assert source.is_closed.is_set()


def test_it_ends_after_the_frame_in_hand_when_it_is_stopped() -> None:
    stop = threading.Event()

    class Stopping(FakeOutput):
        def write(self, judged: Any) -> None:
            super().write(judged)
            stop.set()

    first, second = Stopping(), FakeOutput()
    source = FakeSource([GOOD], is_endless=True)
    summary = Pipeline(source, FakeEngine(), [first, second], stop=stop).run()
    assert (summary.frames, len(first.judged), len(second.judged)) == (1, 1, 1)
    assert source.is_closed.is_set()


def test_a_source_that_breaks_is_judged_up_to_there_and_the_outputs_are_finished() -> None:
    output = FakeOutput()
    source = FakeSource([GOOD, BAD], error=SourceError("cut short"))
    pipeline = Pipeline(source, FakeEngine(), [output])
    with pytest.raises(SourceError, match="cut short"):
        pipeline.run()
    assert (len(output.judged), output.closings, pipeline.summary.frames) == (2, 1, 2)


def test_a_failing_output_is_told_of_once_and_the_inspection_goes_on() -> None:
    told: list[tuple[Any, WriteError]] = []
    full = WriteError("the disk is full")
    bad, good = FakeOutput("bad", fails_at=1, error=full), FakeOutput()
    pipeline = Pipeline(
        FakeSource([GOOD] * 5),
        FakeEngine(),
        [bad, good],
        on_output_error=lambda output, error: told.append((output, error)),
    )
    pipeline.run()
    assert (len(bad.judged), len(good.judged)) == (1, 5)
    assert told == pipeline.failures == [(bad, full)]
    assert (bad.closings, good.closings) == (1, 1)


def test_a_run_whose_last_output_fails_ends() -> None:
    output = FakeOutput(fails_at=2, error=WriteError("the disk is full"))
    pipeline = Pipeline(FakeSource([GOOD], is_endless=True), FakeEngine(), [output])
    with pytest.raises(WriteError, match="the disk is full"):
        pipeline.run()


def test_an_output_that_cannot_be_finished_is_a_failure_and_the_others_are_finished() -> None:
    bad = FakeOutput("bad", close_error=WriteError("holds 1 of 2 frames"))
    broken = FakeOutput("broken", close_error=ZeroDivisionError())
    good = FakeOutput()
    pipeline = Pipeline(FakeSource([GOOD]), FakeEngine(), [bad, broken, good])
    with pytest.raises(ZeroDivisionError):
        pipeline.run()
    assert [output.name for output, _ in pipeline.failures] == ["bad"]
    assert good.closings == 1


def test_an_output_that_nobody_reads_ends_the_run_without_an_error() -> None:
    output = FakeOutput(fails_at=2, error=OutputClosedError())
    pipeline = Pipeline(FakeSource([GOOD], is_endless=True), FakeEngine(), [output])
    pipeline.run()
    assert (len(output.judged), pipeline.failures, output.closings) == (2, [], 1)


def test_stage_times_come_from_the_clock_and_later_outputs_see_the_earlier_ones() -> None:
    clock = FakeClock(step_s=0.001)
    first, second = FakeOutput(), FakeOutput()
    Pipeline(FakeSource([GOOD]), FakeEngine(), [first, second], clock=clock).run()
    times = second.verdicts[0].times
    assert (times.read_ms, times.wait_ms) == (1.0, 0.0)
    assert (times.preprocess_ms, times.infer_ms) == pytest.approx((1.0, 1.0))
    assert (first.verdicts[0].times.output_ms, times.output_ms) == pytest.approx((0.0, 1.0))
    assert times.total_ms == pytest.approx(3.0)


def test_dropped_frames_are_counted() -> None:
    class Slow(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            assert source.is_closed.wait(60)  # the whole source runs past this first frame
            return super().infer(frames)

    source = FakeSource([GOOD] * 20, is_live=True)
    summary = Pipeline(source, Slow()).run()
    assert summary.frames + summary.dropped == 20
    assert summary.dropped >= 18


def verdict(total_ms: float, score: float = 1.0) -> Verdict:
    return Verdict("lamp", 0, "a fake", None, NOON, score, 2.0, StageTimes(9.0, 9.0, 0.0, total_ms))


def test_the_percentiles_are_those_of_the_latencies() -> None:
    tally = Tally()
    for total_ms in range(101):
        tally.add(verdict(float(total_ms), score=2.0 if total_ms < 4 else 1.0))
    summary = tally.summary(elapsed_s=2.0, dropped=3, skipped_unreadable=1)
    assert (summary.p50_ms, summary.p95_ms, summary.p99_ms) == (50.0, 95.0, 99.0)
    assert (summary.frames, summary.anomalous, summary.fps) == (101, 4, 50.5)
    assert (summary.dropped, summary.skipped_unreadable) == (3, 1)


def test_the_percentiles_are_over_the_latest_frames_only() -> None:
    tally = Tally()
    tally.add(verdict(1e9))
    for _ in range(LATENCY_WINDOW):
        tally.add(verdict(1.0))
    summary = tally.summary(elapsed_s=1.0, dropped=0, skipped_unreadable=0)
    assert (summary.frames, summary.p99_ms) == (LATENCY_WINDOW + 1, 1.0)


def test_a_run_without_frames_has_no_percentiles() -> None:
    pipeline, _ = run([])
    summary = pipeline.summary
    assert (summary.frames, summary.fps, summary.p50_ms, summary.p99_ms) == (0, 0.0, None, None)
