"""The loop of a line over fakes: verdicts, batches, times, endings and failures."""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from patchline.runtime.camera.adjust import Adjustment, Box
from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.options import Flip
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.event import Event, EventKind, Phase
from patchline.runtime.decisions.mask import Mask
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import EngineError, FrameError, SourceError, WriteError
from patchline.runtime.line.camera import Prepared, Rules
from patchline.runtime.line.inspection import GATHER_S
from patchline.runtime.line.watchdog import Heartbeat
from patchline.runtime.outputs.base import OutputClosedError, OutputEndedError
from patchline.runtime.outputs.queued import QueuedOutput
from patchline.runtime.preprocess import Frame

from ..fakes import NOON, FakeClock, FakeEngine, FakeOutput, FakeSource, gray
from ..inspected import InspectedLine, inspect_images
from ..scripted import PATIENCE_S, ScriptedSource
from ..tiny_model import THRESHOLD

GOOD, BAD = gray(100), gray(250)


class BatchingEngine(FakeEngine):
    """Remembers how many frames each call had."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def infer(self, frames: Frame) -> Prediction:
        self.batches.append(len(frames))
        return super().infer(frames)


def test_every_frame_gets_a_verdict() -> None:
    output = FakeOutput()
    line = inspect_images([GOOD, BAD, GOOD], output)
    assert [verdict.frame for verdict in output.verdicts] == [0, 1, 2]
    assert [verdict.anomalous for verdict in output.verdicts] == [False, True, False]
    assert [verdict.score for verdict in output.verdicts] == [100.0, 250.0, 100.0]
    assert {(v.source, v.threshold, v.time) for v in output.verdicts} == {("a fake", 200.0, NOON)}
    assert {v.camera for v in output.verdicts} == {"camera1"}
    (camera,) = line.cameras
    assert (camera.figures.frames, camera.figures.anomalous) == (3, 1)
    assert output.closings == 1


def test_outputs_get_the_influence_of_the_frame() -> None:
    output = FakeOutput()
    inspect_images([GOOD], output)
    np.testing.assert_array_equal(output.judged[0].influence_map, np.full((32, 32), 50.0))


def test_a_score_at_the_threshold_is_anomalous() -> None:
    output = FakeOutput()
    inspect_images([gray(199), gray(200)], output)
    assert [verdict.anomalous for verdict in output.verdicts] == [False, True]


def test_another_threshold_may_be_asked_for_even_zero() -> None:
    output = FakeOutput()
    inspect_images([GOOD], output, rules=Rules(threshold=0.0))
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
    output = FakeOutput()
    inspect_images(kinds, output)
    assert [verdict.score for verdict in output.verdicts] == [100.0] * len(kinds)


def test_the_contour_moves_with_another_threshold() -> None:
    output = FakeOutput()
    inspect_images([GOOD], output)
    inspect_images([GOOD], output, rules=Rules(threshold=THRESHOLD / 2))
    whole, half = output.judged
    assert half.map_value == pytest.approx(whole.map_value / 2)


def test_a_camera_is_given_up_after_as_many_attempts_as_were_asked_for() -> None:
    source = FakeSource([], is_live=True, error=SourceError("unplugged"))
    limits = ReconnectLimits(attempts=0)
    with pytest.raises(SourceError, match="unplugged"):
        InspectedLine([source], may_end=False, limits=limits).run()


def test_a_frame_that_is_no_picture_is_named_after_those_before_it_were_judged() -> None:
    output = FakeOutput()
    with pytest.raises(FrameError, match=r"frame 1: .*expected 8- or 16-bit.*float32"):
        inspect_images([GOOD, np.zeros((4, 4, 3), np.float32)], output)
    assert (len(output.judged), output.closings) == (1, 1)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_frame(score: float) -> None:
    class Broken(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            found = super().infer(frames)
            return Prediction(np.array([score], np.float32), found.anomaly_map, found.influence_map)

    output = FakeOutput()
    with pytest.raises(EngineError, match=rf"a fake, frame 0: .*score {score}"):
        inspect_images([GOOD], output, engine=Broken())
    assert (output.judged, output.closings) == ([], 1)


def test_flip_and_crop_come_before_the_model_and_are_what_outputs_see() -> None:
    picture = gray(10, 60, 100)
    picture[:20, 80:] = 240
    output = FakeOutput()
    rules = Rules(adjustment=Adjustment(Box(0, 0, 20, 20), Flip.HORIZONTAL))
    inspect_images([picture], output, rules=rules)
    assert output.verdicts[0].score == 240.0
    np.testing.assert_array_equal(output.judged[0].captured.image, gray(240, 20, 20))


def test_a_mask_keeps_what_lies_outside_it_out_of_the_score() -> None:
    picture = gray(50, 64, 64)
    picture[:, 32:] = 250
    inside = np.zeros((64, 64), bool)
    inside[:, :16] = True
    output = FakeOutput()
    inspect_images([picture], output, rules=Rules(mask=Mask(inside, "left.png")))
    assert (output.verdicts[0].score, output.verdicts[0].anomalous) == (50.0, False)


def test_what_a_mask_leaves_out_is_in_no_region_and_no_contour() -> None:
    picture = gray(50, 64, 64)
    picture[:16, :16] = 230
    picture[:, 48:] = 250
    inside = np.zeros((64, 64), bool)
    inside[:, :32] = True
    output = FakeOutput()
    inspect_images([picture], output, rules=Rules(mask=Mask(inside, "left.png")))
    (started, _) = output.notices
    assert isinstance(started, Event)
    (region,) = started.regions
    assert (region.x, region.y, region.width, region.height) == (0, 0, 16, 16)
    assert output.judged[0].anomaly_map[:, 20:].max() <= 50.0


def test_a_mask_of_another_shape_is_an_error() -> None:
    rules = Rules(mask=Mask(np.ones((10, 30), bool), "wide.png"))
    with pytest.raises(FrameError, match=r"wide\.png is 30 x 10"):
        inspect_images([GOOD], rules=rules)


def test_frames_that_are_there_together_are_judged_in_one_call() -> None:
    engine, output = BatchingEngine(), FakeOutput()
    sources = [FakeSource([gray(10 + i)] * 20) for i in range(3)]
    line = InspectedLine(sources, [output], engine=engine).run()
    assert sum(engine.batches) == 60
    assert max(engine.batches) == 3
    for i, camera in enumerate(line.cameras):
        judged = [one for one in output.judged if one.verdict.camera == camera.name]
        assert [one.verdict.frame for one in judged] == list(range(20))
        assert {one.verdict.score for one in judged} == {10.0 + i}
        assert {float(one.anomaly_map.max()) for one in judged} == {10.0 + i}
        assert {float(one.influence_map.max()) for one in judged} == {(10.0 + i) / 2}


def test_each_camera_has_its_own_rules() -> None:
    output = FakeOutput()
    line = InspectedLine([FakeSource([GOOD]), FakeSource([GOOD])], [output])
    line.cameras[1].rules = Rules(threshold=50.0)
    line.run()
    assert {(v.camera, v.anomalous) for v in output.verdicts} == {
        ("camera1", False),
        ("camera2", True),
    }


def test_one_camera_that_fails_does_not_end_the_others_and_is_told_in_the_end() -> None:
    output = FakeOutput()
    sources = [FakeSource([GOOD], error=SourceError("cut short")), FakeSource([GOOD] * 30)]
    with pytest.raises(SourceError, match="cut short"):
        InspectedLine(sources, [output]).run()
    assert len([v for v in output.verdicts if v.camera == "camera2"]) == 30


def test_it_ends_after_max_frames() -> None:
    source = FakeSource([GOOD], is_endless=True)
    assert InspectedLine([source], max_frames=7).run().frames == 7
    assert source.is_closed.is_set()


def test_how_long_it_ran_is_known() -> None:
    clock = FakeClock()
    clock.time_s = 5000.0

    class Slow(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            clock.time_s += 2.5
            return super().infer(frames)

    line = inspect_images([GOOD] * 2, engine=Slow(), clock=clock)
    assert line.inspection.elapsed_s == pytest.approx(5.0)


class HandFed:
    """A reader whose polls give what a test says; it is over when nothing is left."""

    error = None
    dropped = 0
    state = StreamState.RUNNING

    def __init__(self, *polls: Prepared | None, is_ready: bool = False) -> None:
        self.is_ready = is_ready
        self._polls = list(polls)

    @property
    def is_over(self) -> bool:
        return not self._polls

    def start(self) -> None:
        """Nothing is to be opened."""

    def poll(self) -> Prepared | None:
        return self._polls.pop(0) if self._polls else None

    def close(self) -> None:
        """Nothing is open."""


class Waits(threading.Condition):
    """Remembers how long was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return True


def prepared(taken_s: float = 0.0, preprocess_ms: float = 0.0) -> Prepared:
    captured = CapturedFrame(GOOD, 0, NOON, 1.0, taken_s=taken_s)
    return Prepared(captured, gray(100, 32, 32), preprocess_ms, None)


def hand_fed(*readers: HandFed, **options: Any) -> tuple[InspectedLine, Waits]:
    line, waits = InspectedLine([FakeSource([]) for _ in readers], **options), Waits()
    line.inspection._changed = waits
    for camera, reader in zip(line.cameras, readers, strict=True):
        camera.reader = reader  # type: ignore[assignment]
    return line, waits


@pytest.mark.parametrize("is_live", [True, False])
def test_a_frame_waits_a_moment_for_those_of_other_live_cameras(is_live: bool) -> None:
    engine = BatchingEngine()
    readers = HandFed(prepared(), None), HandFed(None, prepared(), None)
    line, waits = hand_fed(*readers, engine=engine)
    line.cameras[1].is_live = is_live
    line.run()
    assert engine.batches == ([2] if is_live else [1, 1])
    assert (GATHER_S in waits.seconds) is is_live


def test_a_camera_that_is_lost_is_not_waited_for() -> None:
    readers = HandFed(prepared(), None), HandFed(None, prepared(), None)
    readers[1].state = StreamState.RECONNECTING
    line, waits = hand_fed(*readers)
    line.cameras[1].is_live = True
    line.run()
    assert GATHER_S not in waits.seconds


def test_cameras_that_hang_are_closed_at_the_same_time() -> None:
    both = threading.Barrier(2)

    class Hanging(HandFed):
        def close(self) -> None:
            both.wait(PATIENCE_S)

    hand_fed(Hanging(prepared()), Hanging(prepared()))[0].run()


@pytest.mark.parametrize("is_ready", [True, False])
def test_nothing_is_waited_for_where_a_camera_has_something(is_ready: bool) -> None:
    line, waits = hand_fed(HandFed(None, prepared(), None, is_ready=is_ready))
    assert line.run().frames == 1
    assert bool(waits.seconds) is not is_ready


def test_what_it_took_to_prepare_a_frame_is_no_part_of_its_wait() -> None:
    output, clock = FakeOutput(), FakeClock()
    clock.time_s = 10.0
    reader = HandFed(prepared(taken_s=9.75, preprocess_ms=100.0))
    hand_fed(reader, outputs=[output], clock=clock)[0].run()
    assert output.verdicts[0].times.wait_ms == pytest.approx(150.0)


def test_max_frames_counts_the_frames_of_all_cameras() -> None:
    sources = [FakeSource([GOOD], is_endless=True) for _ in range(3)]
    assert InspectedLine(sources, max_frames=7).run().frames == 7


def test_it_ends_after_the_frame_in_hand_when_it_is_stopped() -> None:
    stop = threading.Event()

    class Stopping(FakeOutput):
        def write(self, judged: Any) -> None:
            super().write(judged)
            stop.set()

    first, second = Stopping(), FakeOutput()
    source = FakeSource([GOOD], is_endless=True)
    line = InspectedLine([source], [first, second], stop=stop).run()
    assert (line.frames, len(first.judged), len(second.judged)) == (1, 1, 1)
    assert source.is_closed.is_set()


def test_a_source_that_breaks_is_judged_up_to_there_and_the_outputs_are_finished() -> None:
    output = FakeOutput()
    line = InspectedLine([FakeSource([GOOD, BAD], error=SourceError("cut short"))], [output])
    with pytest.raises(SourceError, match="cut short"):
        line.run()
    assert (len(output.judged), output.closings, line.frames) == (2, 1, 2)
    assert [change.state for change in line.states][-1] is StreamState.FAILED


def test_an_event_is_told_after_its_frame_and_ends_with_the_line() -> None:
    told: list[tuple[str, Any]] = []

    class Ordered(FakeOutput):
        def write(self, judged: Any) -> None:
            told.append(("frame", judged.verdict.frame))

        def notify(self, notice: Any) -> None:
            told.append((notice.phase.value, notice.last_frame))

    inspect_images([GOOD, BAD, BAD], Ordered(), rules=Rules(trigger=Trigger(2, 3)))
    expected = [("frame", 0), ("frame", 1), ("frame", 2), ("started", 2), ("ended", 2)]
    assert told == expected


def test_an_event_that_goes_on_ends_when_a_camera_breaks() -> None:
    output = FakeOutput()
    with pytest.raises(SourceError):
        InspectedLine([FakeSource([BAD], error=SourceError("cut short"))], [output]).run()
    assert [(e.kind, e.phase) for e in output.notices if isinstance(e, Event)] == [
        (EventKind.DEFECT, Phase.STARTED),
        (EventKind.DEFECT, Phase.ENDED),
    ]


def test_a_failing_output_does_not_end_the_inspection() -> None:
    told: list[str] = []
    bad = FakeOutput("bad", fails_at=1, error=OutputEndedError("the disk is full"))
    good = FakeOutput()
    queued = QueuedOutput(bad, is_lossless=True, on_failure=lambda name, why: told.append(why))
    line = InspectedLine([FakeSource([GOOD] * 5)], [good], queued=[queued]).run()
    assert (len(bad.judged), len(good.judged)) == (1, 5)
    assert line.outputs.incomplete == line.outputs.failing == ["bad"]
    assert told == ["the disk is full. It is not tried again"]
    assert (bad.closings, good.closings) == (1, 1)


def test_a_run_whose_last_output_fails_for_good_ends() -> None:
    bad = FakeOutput("bad", fails_at=2, error=OutputEndedError("the disk is full"))
    source = FakeSource([GOOD], is_endless=True)
    line = InspectedLine([source], queued=[QueuedOutput(bad, is_lossless=True)])
    with pytest.raises(WriteError, match="no output is left that works: bad"):
        line.run()


def test_an_output_that_nobody_reads_ends_the_run_without_an_error() -> None:
    output = FakeOutput(fails_at=2, error=OutputClosedError())
    source = FakeSource([GOOD], is_endless=True)
    line = InspectedLine([source], queued=[QueuedOutput(output, is_lossless=True)]).run()
    assert (len(output.judged), line.outputs.incomplete, output.closings) == (2, [], 1)


def test_an_output_that_nobody_reads_ends_nothing_while_there_are_others() -> None:
    closed = FakeOutput(fails_at=0, error=OutputClosedError())
    other = FakeOutput()
    queued = [QueuedOutput(one, is_lossless=True) for one in (closed, other)]
    InspectedLine([FakeSource([GOOD] * 50)], queued=queued).run()
    assert len(other.judged) == 50


def test_stage_times_come_from_the_clock() -> None:
    output = FakeOutput()
    clock = FakeClock(step_s=0.001)
    inspect_images([GOOD], output, clock=clock)
    times = output.verdicts[0].times
    assert times.read_ms == 1.0
    assert times.preprocess_ms >= 1.0 and times.infer_ms >= 1.0
    assert times.total_ms == pytest.approx(times.preprocess_ms + times.infer_ms)


def test_a_live_camera_loses_frames_rather_than_time() -> None:
    class Slow(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            assert source.is_closed.wait(60)  # the whole source runs past this first frame
            return super().infer(frames)

    source = FakeSource([GOOD] * 20, is_live=True)
    line = InspectedLine([source], engine=Slow()).run()
    (camera,) = line.cameras
    assert line.frames + camera.reader.dropped == 20
    assert camera.reader.dropped >= 18


def test_between_frames_is_called_before_each_call_of_the_engine() -> None:
    calls: list[str] = []

    class Telling(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            calls.append("engine")
            return super().infer(frames)

    inspect_images([GOOD] * 3, engine=Telling(), between_frames=lambda: calls.append("between"))
    assert calls.count("engine") == 3
    assert all(calls[at - 1] == "between" for at, call in enumerate(calls) if call == "engine")


def test_between_frames_is_called_while_no_camera_gives_a_frame() -> None:
    stop, calls = threading.Event(), []

    def between() -> None:
        calls.append(1)
        if len(calls) == 3:
            stop.set()

    source = ScriptedSource()
    assert InspectedLine([source], stop=stop, between_frames=between).run().frames == 0
    assert len(calls) == 3


def test_a_crop_and_a_mask_that_change_together_do_so_for_the_same_frame() -> None:
    picture = gray(100)
    picture[:, 50:] = 250
    left = np.arange(30) < 20
    cropped = Rules(Adjustment(Box(0, 0, 60, 20)), Mask(np.tile(left, (10, 1)), "left.png"))
    output = FakeOutput()
    line = InspectedLine([FakeSource([picture] * 20)], [output])
    (camera,) = line.cameras

    def between() -> None:
        if camera.reader.captured:
            camera.rules = cropped

    line.inspection._between_frames = between
    line.run()  # the first frames were cropped as before, and must not be held against the mask
    shapes = [judged.captured.image.shape[:2] for judged in output.judged]
    assert shapes[0] == (48, 64) and shapes[-1] == (20, 60) and len(shapes) == 20
    scores = [verdict.score for verdict in output.verdicts]
    assert scores == [250.0 if shape == (48, 64) else 100.0 for shape in shapes]


def test_a_live_camera_whose_pictures_do_not_fit_its_mask_is_refused_and_not_the_line() -> None:
    rules = Rules(mask=Mask(np.ones((48, 64), bool), "mask.png"))
    output = FakeOutput()
    sources = [FakeSource([gray(100, 20, 90)], is_live=True), FakeSource([GOOD] * 5)]
    line = InspectedLine(sources, [output], rules=rules).run()
    assert line.cameras[0].reader.refused == 1
    assert [v.camera for v in output.verdicts] == ["camera2"] * 5


def test_an_event_ends_with_its_camera_while_the_others_go_on() -> None:
    stop, told = threading.Event(), FakeOutput()

    class Stopping(FakeOutput):
        def notify(self, notice: Any) -> None:
            told.notify(notice)
            if notice.phase is Phase.ENDED:
                stop.set()

    sources = [FakeSource([BAD]), FakeSource([GOOD], is_endless=True)]
    line = InspectedLine(sources, [Stopping()], stop=stop, max_frames=5_000).run()
    assert line.frames < 5_000
    assert [e.phase for e in told.notices if isinstance(e, Event)] == [Phase.STARTED, Phase.ENDED]


def test_the_wait_of_a_frame_is_its_age_whatever_the_wall_clock_does() -> None:
    class Jumping(FakeClock):
        def now(self) -> datetime:
            return NOON + timedelta(days=365)

    output, clock = FakeOutput(), Jumping()
    clock.time_s = 5000.0
    line = InspectedLine([FakeSource([GOOD])], [output], clock=clock)
    (camera,) = line.cameras
    polled = camera.reader.poll

    def poll_late() -> Any:
        # Only once the frame is here: the capture thread may add it at any moment before.
        taken = polled()
        if taken is not None:
            clock.time_s += 0.25
        return taken

    camera.reader.poll = poll_late  # type: ignore[method-assign]
    line.run()
    times = output.verdicts[0].times
    assert times.wait_ms == pytest.approx(250.0)


def test_the_heartbeat_is_busy_only_inside_the_engine() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(clock)
    seen: list[float] = []

    class Hanging(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            clock.time_s += 100.0
            seen.append(clock.time_s - heartbeat())
            return super().infer(frames)

    inspect_images([GOOD], engine=Hanging(), clock=clock, heartbeat=heartbeat)
    assert seen == [100.0]
    assert heartbeat() == clock.monotonic()
