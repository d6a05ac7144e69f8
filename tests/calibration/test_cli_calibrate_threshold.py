"""``calibrate-threshold`` as a user calls it: what is written, what is said, what is refused."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from patchline.calibration.cli import calibrate_threshold as command
from patchline.calibration.threshold import derive_threshold
from patchline.runtime.contract import load_manifest
from patchline.runtime.engine import open_engine
from tests.commands import Call, Caller
from tests.programs import run_program

from .conftest import Write


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return functools.partial(Caller(monkeypatch, capsys), command)


class TestRate:
    def test_another_rate_needs_no_pictures(self, call: Call, lamp: Path) -> None:
        before = load_manifest(lamp.with_suffix(".json"))
        done = call("--model", lamp, "--false-alarm-rate", "0.1")
        assert done.status == 0, done.stderr
        after = load_manifest(lamp.with_suffix(".json"))
        assert after.threshold == derive_threshold(before.normal_scores, 0.1)
        assert after.normal_scores == before.normal_scores
        # Nothing else moves, and the engine takes the new threshold.
        changed = after.model_copy(update={"threshold": before.threshold})
        assert changed == before
        with open_engine(lamp) as engine:
            assert engine.manifest.threshold == after.threshold
        assert "78: by hand" in done.stdout and f"{after.threshold.value:.4g}" in done.stdout

    def test_too_few_scores_for_the_rate_are_said(self, call: Call, lamp: Path) -> None:
        done = call("--model", lamp, "--false-alarm-rate", "0.001")
        assert done.status == 0
        assert "warning: 40 good pictures support a false-alarm rate of 2.44 %" in done.stderr

    def test_a_dry_run_writes_nothing(self, call: Call, lamp: Path) -> None:
        before = lamp.with_suffix(".json").read_bytes()
        done = call("--model", lamp, "--false-alarm-rate", "0.2", "--dry-run")
        assert done.status == 0 and "nothing was written" in done.stdout
        assert lamp.with_suffix(".json").read_bytes() == before


class TestLine:
    def test_the_lines_scores_replace_those_of_the_fit(
        self, call: Call, lamp: Path, write: Write
    ) -> None:
        write("line", range(50, 90))
        done = call("--model", lamp, "--images", lamp.parents[1] / "line", "--json")
        assert done.status == 0, done.stderr
        after = load_manifest(lamp.with_suffix(".json"))
        assert after.normal_scores.source == "line"
        assert after.normal_scores.scores == tuple(float(value) for value in range(50, 90))
        assert after.threshold == derive_threshold(after.normal_scores, 0.05)
        result = done.document
        assert result["threshold"] == after.threshold.model_dump(mode="json")
        assert (result["images"], result["threshold_before"], result["written"]) == (40, 78, True)
        assert "warning" not in done.stderr

    def test_a_line_unlike_the_fit_is_said(self, call: Call, lamp: Path, write: Write) -> None:
        write("line", range(110, 150))
        done = call("--model", lamp, "--images", lamp.parents[1] / "line")
        assert "score 2.2 times as high" in done.stderr and "--extend" in done.stderr
        assert "40 of 40 reach it" in done.stdout

    def test_sub_folders_count(self, call: Call, lamp: Path, write: Write) -> None:
        write("line/monday", range(40, 60))
        write("line/tuesday", range(60, 80))
        done = call("--model", lamp, "--images", lamp.parents[1] / "line", "--json")
        assert done.document["images"] == 40

    def test_a_frozen_camera_is_an_error(self, call: Call, lamp: Path, write: Write) -> None:
        before = lamp.with_suffix(".json").read_bytes()
        write("line", [60] * 30)
        done = call("--model", lamp, "--images", lamp.parents[1] / "line")
        assert done.status == 1
        assert "all 30 scores" in done.sentence and "camera that stands still" in done.sentence
        assert lamp.with_suffix(".json").read_bytes() == before

    def test_copies_are_said(self, call: Call, lamp: Path, write: Write) -> None:
        write("line", [*range(40, 60)] * 2)
        done = call("--model", lamp, "--images", lamp.parents[1] / "line")
        assert done.status == 0
        assert "the 40 pictures of the line have only 20 different scores" in done.stderr

    def test_an_unreadable_picture(self, call: Call, lamp: Path, write: Write) -> None:
        write("line", range(40, 70))[3].write_bytes(b"broken")
        words = ("--model", lamp, "--images", lamp.parents[1] / "line")
        done = call(*words)
        assert done.status == 1 and "003.png" in done.sentence
        done = call(*words, "--skip-unreadable", "--json")
        assert done.status == 0 and done.document["images"] == 29
        assert "skipped: " in done.stderr

    def test_nothing_but_unreadable_pictures(self, call: Call, lamp: Path, write: Write) -> None:
        for path in write("line", range(3)):
            path.write_bytes(b"broken")
        done = call("--model", lamp, "--images", lamp.parents[1] / "line", "--skip-unreadable")
        assert done.status == 1 and "none of the 3 pictures can be read" in done.sentence

    def test_one_picture_is_too_few(self, call: Call, lamp: Path, write: Write) -> None:
        write("line", [60])
        done = call("--model", lamp, "--images", lamp.parents[1] / "line")
        assert done.status == 1 and "too few" in done.sentence


class TestLabelled:
    def test_it_stands_beside_and_decides_nothing(
        self, call: Call, lamp: Path, write: Write
    ) -> None:
        write("labelled/good", range(40, 80))
        write("labelled/dark", [75, 120, 130, 140])
        before = load_manifest(lamp.with_suffix(".json"))
        done = call("--model", lamp, "--labelled", lamp.parents[1] / "labelled")
        assert done.status == 0, done.stderr
        after = load_manifest(lamp.with_suffix(".json"))
        best = after.threshold.f1_max
        assert best is not None
        assert (best.value, best.good, best.defective) == ((79 + 120) / 2, 40, 4)
        assert best.f1 == pytest.approx(6 / 7)
        assert after.threshold.model_copy(update={"f1_max": None}) == before.threshold
        assert "largest F1" in done.stdout

    def test_a_later_rate_keeps_it(self, call: Call, lamp: Path, write: Write) -> None:
        write("labelled/good", range(40, 60))
        write("labelled/dark", [120, 130])
        call("--model", lamp, "--labelled", lamp.parents[1] / "labelled")
        call("--model", lamp, "--false-alarm-rate", "0.1")
        assert load_manifest(lamp.with_suffix(".json")).threshold.f1_max is not None

    def test_one_kind_alone(self, call: Call, lamp: Path, write: Write) -> None:
        write("labelled/good", range(40, 60))
        done = call("--model", lamp, "--labelled", lamp.parents[1] / "labelled")
        assert done.status == 1 and "good ones only" in done.sentence


class TestRefused:
    @pytest.mark.parametrize("rate", ["0", "1", "-0.1", "0.51", "nan", "1e-300", "9e-7"])
    def test_a_rate_out_of_range(self, call: Call, lamp: Path, rate: str) -> None:
        done = call("--model", lamp, "--false-alarm-rate", rate)
        assert done.status == 1 and "from 1e-06 to 0.5" in done.sentence

    def test_nothing_to_do(self, call: Call, lamp: Path) -> None:
        assert "nothing to do" in call("--model", lamp).sentence

    def test_no_such_folder(self, call: Call, lamp: Path) -> None:
        done = call("--model", lamp, "--images", lamp.parent / "nowhere")
        assert done.status == 1 and "is no folder" in done.sentence

    def test_no_such_model(self, call: Call, lamp: Path) -> None:
        done = call("--model", lamp.with_name("no.onnx"), "--false-alarm-rate", "0.1")
        assert done.status == 1 and "no.onnx does not exist" in done.sentence

    def test_an_empty_folder(self, call: Call, lamp: Path) -> None:
        (lamp.parent / "empty").mkdir()
        done = call("--model", lamp, "--images", lamp.parent / "empty")
        assert done.status == 1 and "holds no picture" in done.sentence

    def test_without_scipy(self, call: Call, lamp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        done = call("--model", lamp, "--false-alarm-rate", "0.1")
        assert done.status == 1
        assert 'pip install "patchline[calibration]"' in done.sentence

    @pytest.mark.parametrize("words", [(), ("--model", "a.onnx", "--bogus")])
    def test_wrong_usage_is_exit_status_2(self, call: Call, words: tuple[str, ...]) -> None:
        assert call(*words).status == 2


def test_the_device_needs_neither_torch_nor_onnx(lamp: Path, write: Write) -> None:
    write("line", range(40, 60))
    write("labelled/good", range(40, 60))
    write("labelled/dark", [120, 130])
    root = lamp.parents[1]
    code = (
        "import sys\n"
        "from patchline.calibration.cli.calibrate_threshold import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'torch', 'timm', 'onnx', 'sklearn'}\n"
        "assert not heavy & sys.modules.keys()\n"
        "assert not [m for m in sys.modules if m.startswith('patchline.export')]\n"
    )
    done = run_program(
        [sys.executable, "-c", code, "--model", lamp, "--images", root / "line",
         "--labelled", root / "labelled"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_command_is_installed() -> None:
    assert shutil.which("calibrate-threshold", path=str(Path(sys.executable).parent))


def test_thresholds_fall_as_the_rate_rises(call: Call, lamp: Path) -> None:
    values = []
    for rate in (0.001, 0.01, 0.05, 0.2, 0.5):
        call("--model", lamp, "--false-alarm-rate", rate)
        values.append(load_manifest(lamp.with_suffix(".json")).threshold.value)
    assert values == sorted(values, reverse=True) and len(np.unique(values)) == 5
