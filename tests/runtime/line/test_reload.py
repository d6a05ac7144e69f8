"""The settings file read again while the line runs."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import pytest

from patchline.runtime.camera.adjust import Box
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.line.build import rules_of
from patchline.runtime.line.live_controls import LineControls
from patchline.runtime.line.overrides import Overrides
from patchline.runtime.line.reload import Reload
from patchline.runtime.line.settings import load_settings

from ..fakes import FakeEngine, FakeSource, gray
from ..inspected import InspectedLine
from ..tiny_model import make_manifest

FILE = """
[[camera]]
name = "left"
source = "test://"
threshold = 120.0

[[camera]]
name = "right"
source = "rtsp://user:secret@camera/1"
"""


class Reloaded:
    """A line that was started with a file, and what it says when that is read again."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "line.toml"
        self.file.write_text(FILE)
        settings = load_settings(self.file)
        # Of a score that a mask can be used with.
        engine = FakeEngine(make_manifest().model_copy(update={"score": "distance"}))
        sources = [FakeSource([gray(1)], is_live=True) for _ in range(2)]
        self.line = InspectedLine(sources, names=("left", "right"))
        for camera, one in zip(self.line.cameras, settings.cameras, strict=True):
            camera.rules = rules_of(one, engine.manifest)
        self.said: list[str] = []
        controls = LineControls(
            self.line.cameras,
            lambda: engine.manifest,
            Overrides(folder / "overrides.json", self.said.append),
        )
        self.reload = Reload(
            self.file,
            settings,
            self.line.cameras,
            controls,
            lambda: engine.manifest,
            self.said.append,
        )

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


@pytest.fixture
def reloaded(tmp_path: Path) -> Reloaded:
    return Reloaded(tmp_path)


def test_thresholds_triggers_and_crops_are_taken_over(reloaded: Reloaded) -> None:
    reloaded.edit("threshold = 120.0", 'threshold = 90.0\ntrigger = "2/4"\ncrop = [1, 2, 30, 40]')
    reloaded.reload.apply()
    left, right = reloaded.line.cameras
    assert (left.rules.threshold, left.rules.trigger) == (90.0, Trigger(2, 4))
    assert left.rules.adjustment.crop == Box(1, 2, 30, 40)
    assert left.decider.trigger == Trigger(2, 4)
    assert right.rules.threshold is None
    assert reloaded.said[0] == f"{reloaded.file} was read again"


@pytest.mark.parametrize("mistake", ["threshold = 'high'", "[[camera", "mask = 'gone.png'"])
def test_a_file_with_a_mistake_changes_nothing(reloaded: Reloaded, mistake: str) -> None:
    reloaded.edit("threshold = 120.0", mistake)
    reloaded.reload.apply()
    assert reloaded.line.cameras[0].rules.threshold == 120.0
    (sentence,) = reloaded.said
    assert sentence.endswith("The settings before go on")


def test_what_takes_a_restart_is_said_each_time_and_the_rest_is_taken_over(
    reloaded: Reloaded,
) -> None:
    reloaded.edit("user:secret@camera/1", "user:secret@camera/2")
    reloaded.edit("threshold = 120.0", "threshold = 90.0")
    reloaded.file.write_text(reloaded.file.read_text() + '[[camera]]\nname="top"\nsource="0"\n')
    for _ in range(2):
        reloaded.said.clear()
        reloaded.reload.apply()
        assert reloaded.said[1:] == [
            "camera right has another source: that takes a restart",
            "camera top is new: that takes a restart",
        ]
    assert reloaded.line.cameras[0].rules.threshold == 90.0
    assert "secret" not in str(reloaded.said)


def test_a_camera_that_is_gone_from_the_file_goes_on(reloaded: Reloaded) -> None:
    reloaded.file.write_text(FILE.split('[[camera]]\nname = "right"')[0])
    reloaded.reload.apply()
    assert reloaded.said[1:] == ["camera right is gone from the file: that takes a restart"]


def test_the_drift_watch_is_renewed_where_its_settings_change(reloaded: Reloaded) -> None:
    reloaded.file.write_text('drift = "off"\n' + FILE)
    reloaded.reload.apply()
    assert all(camera.decider.is_drifting is False for camera in reloaded.line.cameras)
    assert reloaded.said == [f"{reloaded.file} was read again"]


@pytest.fixture
def renewed(reloaded: Reloaded, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cameras whose drift watch was replaced."""
    names: list[str] = []
    for camera in reloaded.line.cameras:
        renew = functools.partial(lambda name, drift: names.append(name), camera.name)
        monkeypatch.setattr(camera.decider, "set_drift", renew)
    return names


@pytest.mark.parametrize("moved", ["crop = [0, 0, 9, 9]", "flip = 'vertical'", "mask = 'm.png'"])
def test_the_drift_watch_of_a_camera_begins_anew_where_it_looks_at_another_part(
    reloaded: Reloaded, renewed: list[str], moved: str
) -> None:
    cv2.imwrite(str(reloaded.file.with_name("m.png")), gray(255))
    reloaded.edit("threshold = 120.0", moved)
    for _ in range(2):
        reloaded.reload.apply()
    assert renewed == ["left"]


@pytest.mark.parametrize("watch", ['drift = "off"', "drift_window = 100"])
def test_other_settings_of_the_drift_watch_hold_for_every_camera(
    reloaded: Reloaded, renewed: list[str], watch: str
) -> None:
    reloaded.file.write_text(f"{watch}\n{FILE}")
    for _ in range(2):
        reloaded.reload.apply()
    assert renewed == ["left", "right"]


def test_another_threshold_leaves_the_drift_watch_alone(
    reloaded: Reloaded, renewed: list[str]
) -> None:
    reloaded.edit("threshold = 120.0", "threshold = 90.0")
    reloaded.reload.apply()
    assert renewed == []


def test_files_have_no_drift_watch_to_renew(reloaded: Reloaded, renewed: list[str]) -> None:
    reloaded.line.cameras[1].is_live = False
    reloaded.reload.renew_drift()
    assert renewed == ["left"]


def test_a_line_that_was_set_up_by_options_has_nothing_to_read(reloaded: Reloaded) -> None:
    without = Reload(None, load_settings(reloaded.file), [], None, None, reloaded.said.append)  # type: ignore[arg-type]
    without.apply()
    assert reloaded.said == []
