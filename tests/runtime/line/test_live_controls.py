"""Looking at a line and setting its thresholds and triggers while it runs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.decider import Decider
from patchline.runtime.decisions.drift import Drift
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.line.camera import Rules
from patchline.runtime.line.live_controls import LineControls
from patchline.runtime.line.overrides import Overrides

from ..fakes import FakeEngine, FakeOutput, FakeSource, gray, judged_frame
from ..inspected import InspectedLine
from ..tiny_model import THRESHOLD, make_manifest


class Controlled:
    """A line of two cameras, the second one with a threshold of its own; and what was said."""

    def __init__(self, path: Path, images: int = 3) -> None:
        self.output = FakeOutput()
        self.engine = FakeEngine()
        sources = [FakeSource([gray(150)] * images) for _ in range(2)]
        self.line = InspectedLine(sources, [self.output], engine=self.engine)
        self.line.cameras[1].rules = Rules(threshold=120.0, trigger=Trigger(2, 3))
        self.said: list[str] = []
        self.overrides = Overrides(path / "overrides.json", self.said.append)
        self.controls = LineControls(
            self.line.cameras, lambda: self.engine.manifest, self.overrides
        )

    def thresholds(self) -> list[float]:
        return [view.threshold for view in self.controls.cameras()]


def test_the_view_says_what_is_configured_and_what_was_seen(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    first, second = controlled.controls.cameras()
    assert (first.name, first.source, first.class_name) == ("camera1", "a fake", "lamp")
    assert (first.state, first.frames, first.p50_ms) == (StreamState.CONNECTING, 0, None)
    assert (first.threshold, first.own_threshold) == (THRESHOLD, THRESHOLD)
    assert (second.threshold, second.own_threshold, second.trigger) == (120.0, 120.0, Trigger(2, 3))
    controlled.line.run()
    first, second = controlled.controls.cameras()
    assert (first.state, first.frames, first.anomalous) == (StreamState.ENDED, 3, 0)
    assert (second.frames, second.anomalous, second.is_drifting) == (3, 3, False)
    assert first.p50_ms is not None and first.p99_ms is not None
    assert first.p50_ms <= first.p99_ms


def test_a_threshold_holds_at_once_and_after_a_restart(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controlled.controls.set_threshold("camera1", 140.0)
    assert controlled.thresholds() == [140.0, 120.0]
    controlled.line.run()
    found = [v.anomalous for v in controlled.output.verdicts if v.camera == "camera1"]
    assert found == [True] * 3
    again = Controlled(tmp_path)
    assert again.thresholds() == [140.0, 120.0]
    assert again.controls.cameras()[0].own_threshold == THRESHOLD
    again.controls.set_threshold("camera1", None)
    assert again.thresholds() == [THRESHOLD, 120.0]
    assert Controlled(tmp_path).thresholds() == [THRESHOLD, 120.0]


def test_the_configured_threshold_and_trigger_come_back_at_once(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controls = controlled.controls
    controls.set_threshold("camera2", 140.0)
    controls.set_trigger("camera2", Trigger(3, 5))
    view = controls.cameras()[1]
    assert (view.threshold, view.trigger) == (140.0, Trigger(3, 5))
    controls.set_threshold("camera2", None)
    controls.set_trigger("camera2", None)
    view = controls.cameras()[1]
    assert (view.threshold, view.trigger) == (120.0, Trigger(2, 3))
    assert controlled.line.cameras[1].rules == Rules(threshold=120.0, trigger=Trigger(2, 3))


def test_the_view_says_how_the_stream_and_the_scores_are(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    camera = controlled.line.cameras[0]
    camera.decider = Decider("camera1", trigger=Trigger(), drift=Drift([0.1] * 20, 100))
    for index in range(100):
        camera.decider.decide(judged_frame(gray(1), index=index))
    camera.reader.dropped = 7
    camera.reader.close()
    for _ in range(2):
        camera.figures.add(judged_frame(gray(1)).verdict, time.perf_counter())
    view = controlled.controls.cameras()[0]
    assert (view.is_drifting, view.dropped) == (True, 7)
    assert view.detail == "it was told to stop"
    assert view.fps > 0


def test_a_trigger_holds_at_once_and_after_a_restart(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controlled.controls.set_trigger("camera2", Trigger(3, 5))
    assert controlled.line.cameras[1].decider.trigger == Trigger(3, 5)
    again = Controlled(tmp_path)
    assert again.controls.cameras()[1].trigger == Trigger(3, 5)
    assert again.line.cameras[1].decider.trigger == Trigger(3, 5)
    again.controls.set_trigger("camera2", None)
    assert again.line.cameras[1].decider.trigger == Trigger(2, 3)
    assert Controlled(tmp_path).controls.cameras()[1].trigger == Trigger(2, 3)


def test_another_product_has_its_own_threshold_again(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controlled.controls.set_threshold("camera1", 140.0)
    manifest = make_manifest()
    threshold = manifest.threshold.model_copy(update={"value": 77.0})
    controlled.engine.manifest = manifest.model_copy(update={"threshold": threshold})
    controlled.controls.apply()
    assert controlled.thresholds() == [77.0, 120.0]
    (sentence,) = controlled.said
    assert "140" in sentence and "77" in sentence


def test_rules_that_are_configured_anew_replace_what_was_set_by_hand(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controlled.controls.set_threshold("camera2", 140.0)
    controlled.controls.configure({"camera2": Rules(threshold=130.0)})
    assert controlled.thresholds() == [THRESHOLD, 130.0]
    assert controlled.line.cameras[1].decider.trigger == Trigger(1, 1)


def test_the_same_rules_again_keep_what_was_set_by_hand(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path)
    controlled.controls.set_threshold("camera2", 140.0)
    controlled.controls.configure({"camera2": Rules(threshold=120.0, trigger=Trigger(2, 3))})
    assert controlled.thresholds() == [THRESHOLD, 140.0]


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path, threshold: float) -> None:
    controlled = Controlled(tmp_path)
    with pytest.raises(ConfigurationError, match="expected a finite number"):
        controlled.controls.set_threshold("camera1", threshold)
    assert controlled.thresholds() == [THRESHOLD, 120.0]


def test_a_camera_that_is_not_there_is_refused(tmp_path: Path) -> None:
    controls = Controlled(tmp_path).controls
    with pytest.raises(ConfigurationError, match="no camera 'left', expected camera1, camera2"):
        controls.set_threshold("left", 1.0)
    with pytest.raises(ConfigurationError, match="no camera 'left'"):
        controls.set_trigger("left", None)


def test_what_cannot_be_saved_holds_all_the_same(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path / "gone")
    (tmp_path / "gone").write_text("a file in the way of the folder")
    with pytest.raises(WriteError):
        controlled.controls.set_threshold("camera1", 140.0)
    assert controlled.thresholds() == [140.0, 120.0]
