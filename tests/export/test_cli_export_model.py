"""``export-model`` as a user calls it: results, exit codes, one-sentence errors, Ctrl-C."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from patchline.export.cli import export_classes
from patchline.export.cli import export_model as command
from patchline.export.config_train import TrainSettings
from patchline.export.precision.again import Job
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from tests.commands import Call, Caller

from .drawn import CLASS_NAME, write_good
from .reports import report_of

QUICK_WORDS = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(Caller(monkeypatch, capsys), command)


@pytest.fixture
def data(drawn_data: Path, tmp_path: Path) -> Path:
    """``gasket`` in MVTec layout, and ``lids``, a plain folder of four pictures."""
    root = tmp_path / "data"
    shutil.copytree(drawn_data, root)
    write_good(root / "lids", 4, first_seed=900)
    return root


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What would be exported: class and settings. Nothing is."""
    seen: list[tuple[str, Any]] = []

    def note(job: Job, *rest: object) -> Any:
        seen.append((job.pictures.class_name, job.settings))
        return report_of(job)

    monkeypatch.setattr(export_classes, "export_class", note)
    return seen


class TestResults:
    def test_two_classes_settings_from_a_file_and_json_lines(
        self, call: Call, data: Path, tmp_path: Path
    ) -> None:
        config = tmp_path / "line.toml"
        config.write_text(
            'backbone = "resnet18"\nweights = "random"\nimage_size = [64, 64]\n'
            "coreset_ratio = 0.5\nseed = 3\n"
        )
        finished = call(
            "--cls", CLASS_NAME, "lids", "--data", data, "--config", config,
            "--coreset-ratio", "0.1", "--json",
        )  # fmt: skip
        assert finished.status == 0, finished.stderr
        lines = finished.lines
        assert [line["class"] for line in lines] == [CLASS_NAME, "lids"]
        assert [line["memory_bank"]["rows"] for line in lines] == [76, 25]
        assert [line["training_set"]["images"] for line in lines] == [12, 4]
        for line in lines:
            path = tmp_path / line["model"]
            assert path.parent == tmp_path / "models"
            document = json.loads(manifest_path(path).read_text())
            assert line | document == line  # the manifest, and more
            assert line["seconds"] >= 0
            assert document["memory_bank"]["seed"] == 3
            with open_engine(path) as engine:
                assert engine.manifest.class_name == line["class"]
        assert f"{CLASS_NAME}: 12 good pictures" in finished.stderr

    def test_a_table_for_people_and_the_other_method(
        self, call: Call, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "deep" / "er"
        (data / "lids" / "002.png").write_bytes(b"broken")
        finished = call(
            *("--cls", "lids", "--data", data, "--out", out, "--method", "patchcore"),
            *("--skip-unreadable", *QUICK_WORDS),
        )
        assert finished.status == 0, finished.stderr
        manifest = load_manifest(out / "lids.json")
        assert (manifest.method, manifest.score) == ("patchcore", "patchcore")
        assert manifest.training_set.skipped_unreadable == 1
        assert "3 (1 unreadable left out)" in finished.stdout
        assert "weights random" in finished.stdout
        assert "warning: skipped: cannot read" in finished.stderr
        assert "002.png" in finished.stderr
        with open_engine(out / "lids.onnx") as engine:
            assert engine.manifest == manifest


class TestClasses:
    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (("--cls", "lids", CLASS_NAME), ["lids", CLASS_NAME]),
            (("--cls", "lids", "--cls", CLASS_NAME), ["lids", CLASS_NAME]),
            (("--cls", "lids", "--json", CLASS_NAME), ["lids", CLASS_NAME]),
            (("--cls", "all"), [CLASS_NAME, "lids"]),
            (("--cls", "lids", "lids"), ["lids"]),
        ],
    )
    def test_several_in_one_call(
        self,
        call: Call,
        data: Path,
        exports: list[tuple[str, Any]],
        words: tuple[str, ...],
        wanted: list[str],
    ) -> None:
        assert call(*words, "--data", data).status == 0
        assert [name for name, _ in exports] == wanted

    def test_every_option_reaches_the_settings(
        self, call: Call, data: Path, exports: list[tuple[str, Any]]
    ) -> None:
        options = {
            "--method": "patchcore",
            "--backbone": "resnet34",
            "--weights": "w.pth",
            "--image-size": "96x128",
            "--score": "distance",
            "--coreset-ratio": "0.25",
            "--coreset": "sharded",
            "--neighbors": "5",
            "--seed": "7",
            "--false-alarm-rate": "0.01",
            "--calibration-split": "0.25",
            "--batch-size": "3",
            "--memory-budget": "512M",
            "--device": "cpu",
            "--bank": "external",
            "--search": "exact",
            "--precision": "int8",
            "--calibration-images": "24",
            "--calibration-method": "percentile",
            "--float-layers": "first, layer2.0.conv1,",
        }
        words = ["--cls", "lids", "--skip-unreadable", *itertools.chain(*options.items())]
        assert call(*words, "--data", data).status == 0
        ((_, settings),) = exports
        assert settings.model_dump() == {
            "method": "patchcore",
            "score": "distance",
            "backbone": "resnet34",
            "weights": "w.pth",
            "image_size": (96, 128),
            "coreset_ratio": 0.25,
            "coreset": "sharded",
            "coreset_delta": 1.0,
            "coreset_shards": None,
            "neighbors": 5,
            "seed": 7,
            "false_alarm_rate": 0.01,
            "calibration_split": 0.25,
            "batch_size": 3,
            "memory_budget_bytes": 512 << 20,
            "skip_unreadable": True,
            "device": "cpu",
            "bank": "external",
            "search": "exact",
            "precision": "int8",
            "calibration_images": 24,
            "calibration_method": "percentile",
            "float_layers": ("first", "layer2.0.conv1"),
            "train": TrainSettings().model_dump(),
        }


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--cls", "pill"), "has no class pill. It has: gasket, lids"),
            (("--cls", "lids", "pill"), "has no class pill"),
            (("--cls", "../data/lids"), "is no class name"),
            (("--cls", "lids", "--coreset-ratio", "0"), "coreset_ratio: "),
            (("--cls", "lids", "--coreset-ratio", "1.5"), "coreset_ratio: "),
            (("--cls", "lids", "--coreset-ratio", "nan"), "coreset_ratio: "),
            (("--cls", "lids", "--seed", "99999999999999999999"), "seed: "),
            (("--cls", "lids", "--score", "best"), "score is 'best', expected one of: "),
            (("--cls", "lids", "--image-size", "big"), "image size is 'big'"),
            (("--cls", "lids", "--image-size", ""), "image size is ''"),
            (("--cls", "lids", "--memory-budget", "lots"), "memory budget is 'lots'"),
            (("--cls", "lids", "--config", "none.toml"), "cannot read none.toml"),
            (("--cls", "lids", "--config", "none.toml"), "Presets: patchcore_256, patchcore_nois"),
            (("--cls", "lids", "--backbone", "resnet19"), "timm has no backbone 'resnet19'"),
            (("--cls", "lids", "--backbone", "vit_tiny_patch16_224"), "vit_tiny_patch16_224"),
            (("--cls", "lids", *QUICK_WORDS, "--weights", "no.pth"), "no.pth does not exist"),
            (
                ("--cls", "lids", *QUICK_WORDS, "--memory-budget", "1M", "--coreset-ratio", "1"),
                "Raise --memory-budget",
            ),
        ],
    )
    def test_one_sentence_and_exit_status_1(
        self, call: Call, data: Path, tmp_path: Path, words: tuple[str, ...], says: str
    ) -> None:
        finished = call(*words, "--data", data)
        assert finished.status == 1
        assert says in finished.sentence
        assert finished.stdout == ""
        assert not list(tmp_path.glob("models/*"))

    def test_weights_that_do_not_fit_name_the_keys(
        self, call: Call, data: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "w.pth"
        torch.save({"conv1.weight": torch.zeros(2)}, path)
        words = ("--cls", "lids", "--data", data, *QUICK_WORDS, "--weights", path)
        finished = call(*words)
        assert finished.status == 1
        assert "does not fit resnet18" in finished.sentence
        assert "keys are missing (bn1.weight" in finished.sentence

    def test_a_data_folder_that_is_not_there(self, call: Call) -> None:
        finished = call("--cls", "lids")
        assert finished.status == 1
        assert "the data folder data does not exist. Give --data" in finished.sentence

    @pytest.mark.parametrize("below", [".", "models"])
    def test_a_file_in_the_way_of_the_results_is_found_before_the_fit(
        self, call: Call, data: Path, tmp_path: Path, exports: list[Any], below: str
    ) -> None:
        (tmp_path / "out").write_text("in the way")
        finished = call("--cls", "lids", "--data", data, "--out", tmp_path / "out" / below)
        assert finished.status == 1
        assert f"cannot write to {tmp_path / 'out' / below}" in finished.sentence
        assert exports == []
        assert (tmp_path / "out").read_text() == "in the way"

    def test_an_unreadable_picture_is_named_with_the_flag(self, call: Call, data: Path) -> None:
        (data / "lids" / "001.png").write_bytes(b"broken")
        finished = call("--cls", "lids", "--data", data, *QUICK_WORDS)
        assert finished.status == 1
        assert "001.png" in finished.sentence and "--skip-unreadable" in finished.sentence

    def test_one_picture_is_too_few(self, call: Call, data: Path) -> None:
        write_good(data / "single", 1)
        finished = call("--cls", "single", "--data", data, *QUICK_WORDS)
        assert finished.status == 1
        assert "1 good picture is too few" in finished.sentence

    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("--cls",),
            ("--cls", "a", "--method", "magic"),
            ("--cls", "a", "--neighbors", "many"),
            ("--cls", "a", "--device", "tpu"),
            ("--cls", "a", "--bogus"),
        ],
    )
    def test_wrong_usage_is_exit_status_2(self, call: Call, words: tuple[str, ...]) -> None:
        finished = call(*words)
        assert finished.status == 2
        assert finished.stdout == "" and "Traceback" not in finished.stderr


def test_ctrl_c_in_the_middle_of_a_fit_leaves_the_old_model(model: Path, tmp_path: Path) -> None:
    write_good(tmp_path / "data" / CLASS_NAME, 20, side_px=64)
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    words = ("--cls", CLASS_NAME, "--data", tmp_path / "data", "--out", model.parent)
    # A large bank, so that the steps after the first take long enough to be interrupted.
    rest = (*QUICK_WORDS[:-1], "128", "--coreset-ratio", "0.9")
    process = subprocess.Popen(
        [sys.executable, "-m", command.__name__, *map(str, words), *rest],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Embedding 20 pictures" in line:
                break
        else:
            pytest.fail("the fit showed no progress")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, stderr
    assert stderr.rstrip().splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr and stdout == ""
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before


def test_help_names_every_option_and_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from patchline.export.cli.export_model import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "assert not {'torch', 'timm', 'onnx', 'cv2'} & sys.modules.keys()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "NO_COLOR": "1"},
    )
    for option in ("--cls", "--data", "--bank", "--config", "--memory-budget", "--json"):
        assert option in finished.stdout
    for option in ("--set", "--epochs", "--noise", "--resume", "--track", "--no-track-pictures"):
        assert option in finished.stdout
