"""``evaluate-model`` as a user calls it: table, JSON, exit codes, one-sentence errors."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.export.cli import evaluate_model as command
from patchline.export.evaluation.result import Evaluation, Metrics
from patchline.runtime.contract import manifest_path
from tests.commands import Call, Caller
from tests.programs import run_program
from tests.runtime.tiny_model import SIZE, make_manifest, write_tiny_model

from .lamp import box, write, write_lamps

NAMES = [field.name for field in fields(Metrics)]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run the command in this process, beside ``data`` and ``models``."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(Caller(monkeypatch, capsys), command)


def write_model(folder: Path, class_name: str) -> Path:
    """``NAME.onnx``: the brighter, the more anomalous."""
    made = folder / "made"
    made.mkdir(parents=True)
    path = write_tiny_model(made, make_manifest(**{"class": class_name}))
    target = folder / f"{class_name}.onnx"
    path.rename(target)
    manifest_path(path).rename(manifest_path(target))
    made.rmdir()
    return target


@pytest.fixture
def lamps(tmp_path: Path) -> Path:
    """The class ``lamp`` and its model."""
    write_model(tmp_path / "models", "lamp")
    return write_lamps(tmp_path / "data")


@pytest.fixture
def two(tmp_path: Path, lamps: Path) -> Path:
    """A second class, ``bulb``, and its model."""
    write_model(tmp_path / "models", "bulb")
    return write_lamps(tmp_path / "data", "bulb", good=5, defective=2)


class TestResults:
    @pytest.mark.usefixtures("lamps")
    def test_json_has_the_promised_shape(self, call: Call) -> None:
        finished = call("--model", "models/lamp.onnx", "--json")
        assert finished.status == 0, finished.stderr
        document = finished.document
        assert list(document) == ["classes", "mean"]
        assert list(document["classes"]) == ["lamp"]
        assert list(document["classes"]["lamp"]) == list(document["mean"]) == NAMES
        assert document["mean"] == document["classes"]["lamp"]
        assert document["mean"]["image_auroc"] == 1.0
        assert 0.5 < document["mean"]["aupro"] < 1
        assert finished.sentences == []
        assert "lamp: judging 7 pictures" in finished.stderr

    @pytest.mark.parametrize(
        "words",
        [
            ("--model", "models/lamp.onnx", "models/bulb.onnx"),
            ("--model", "models/lamp.onnx", "--model", "models/bulb.onnx"),
            ("--model", "models/lamp.onnx", "--threads", "1", "models/bulb.onnx"),
            ("--model", "models/lamp.onnx", "models", "models/lamp.onnx"),
        ],
    )
    @pytest.mark.usefixtures("two")
    def test_several_models_and_their_mean(self, call: Call, words: tuple[str, ...]) -> None:
        document = call(*words, "--data", "data", "--provider", "cpu", "--json").document
        assert list(document["classes"]) == ["lamp", "bulb"]
        for name in NAMES:
            values = [document["classes"][key][name] for key in ("lamp", "bulb")]
            assert document["mean"][name] == pytest.approx(sum(values) / 2)

    @pytest.mark.usefixtures("two")
    def test_a_table_that_never_wraps(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        finished = call("--model", "models")
        assert finished.status == 0, finished.stderr
        lines = finished.stdout.splitlines()
        assert max(map(len, lines)) <= 100
        rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
        assert list(rows) == ["image", "class", rows_rule(lines), "bulb", "lamp", "mean"]
        assert len(rows["lamp"]) == len(NAMES) + 2
        assert rows["lamp"][0] == "1.0000"
        # 200 is the threshold, and the square's noise goes up to 249.
        assert rows["lamp"][-2:] == ["4/4", "0/3"]
        assert rows["bulb"][-2:] == ["2/2", "0/5"]
        assert len(rows["mean"]) == len(NAMES)

    @pytest.mark.usefixtures("lamps")
    def test_the_class_folder_can_be_named(self, call: Call, tmp_path: Path) -> None:
        write_lamps(tmp_path / "data", "line2", good=1)
        document = call("--model", "models/lamp.onnx", "--cls", "line2", "--json").document
        assert list(document["classes"]) == ["line2"]

    @pytest.mark.usefixtures("lamps")
    def test_the_limit_reaches_aupro(self, call: Call) -> None:
        low, high = (
            call("--model", "models", "--fpr-limit", limit, "--json").document["mean"]["aupro"]
            for limit in ("0.05", "1")
        )
        assert low < high


def rows_rule(lines: list[str]) -> str:
    (rule,) = {line for line in lines if line.startswith("─")}
    return rule


class TestProblems:
    @pytest.mark.usefixtures("two")
    def test_one_class_that_fails_does_not_stop_the_others(
        self, call: Call, tmp_path: Path
    ) -> None:
        (tmp_path / "data" / "bulb" / "test" / "good" / "001.png").write_bytes(b"broken")
        finished = call("--model", "models", "--json")
        assert finished.status == 1
        document = finished.document
        assert set(document["classes"]["bulb"].values()) == {None}
        assert document["mean"] == document["classes"]["lamp"]
        assert None not in document["mean"].values()
        ((name, (problem,)),) = document["problems"].items()
        assert name == "bulb" and "001.png" in problem
        assert finished.sentences == [f"error: bulb: {problem}"]

    @pytest.mark.usefixtures("two")
    def test_missing_figures_are_dashes_in_the_table(self, call: Call, tmp_path: Path) -> None:
        manifest_path(tmp_path / "models" / "bulb.onnx").unlink()
        finished = call("--model", "models")
        assert finished.status == 1
        (row,) = (line.split() for line in finished.stdout.splitlines() if "bulb" in line)
        assert row == ["bulb", *["–"] * 10]  # noqa: RUF001
        assert "bulb.json is missing" in finished.sentences[0]

    def test_a_wrong_mask_is_a_problem_and_exit_status_1(self, call: Call, lamps: Path) -> None:
        write(lamps / "ground_truth" / "bright" / "001_mask.png", box() * 0)
        finished = call("--model", "models", "--json")
        assert finished.status == 1
        metrics = finished.document["classes"]["lamp"]
        assert metrics["image_auroc"] == 1.0 and metrics["aupro"] is None
        assert "notes" not in finished.document
        (problem,) = finished.document["problems"]["lamp"]
        assert finished.sentences == [f"error: lamp: {problem}"]
        assert "lamp/ground_truth/bright/001_mask.png" in problem

    def test_no_masks_at_all_is_a_note_and_exit_status_0(self, call: Call, lamps: Path) -> None:
        shutil.rmtree(lamps / "ground_truth")
        finished = call("--model", "models", "--json")
        assert finished.status == 0
        assert "problems" not in finished.document
        (note,) = finished.document["notes"]["lamp"]
        assert f"lamp: {note}" in finished.stderr
        assert finished.sentences == []

    @pytest.mark.usefixtures("lamps")
    def test_a_class_that_is_not_there(self, call: Call) -> None:
        finished = call("--model", "models", "--cls", "pill")
        assert finished.status == 1
        assert "data has no class pill" in finished.sentences[0]


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--model", "bottle.onnx"), "bottle.onnx does not exist. export-model writes it"),
            (("--model", "data"), "data holds no .onnx file. export-model writes them"),
            (("--model", "models", "other"), "are both for class lamp. Evaluate them one by one"),
            (("--model", "models", "--data", "no"), "the data folder no does not exist"),
            (("--model", "models", "--fpr-limit", "0"), "fpr_limit is 0.0, expected"),
            (("--model", "models", "--fpr-limit", "nan"), "fpr_limit is nan, expected"),
            (("--model", "models", "--report", "data/lamp/file"), "cannot write to"),
            (("--model", "models", "more", "--cls", "lamp"), "--cls names one class folder"),
        ],
    )
    def test_one_sentence_and_nothing_runs(
        self,
        call: Call,
        lamps: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: tuple[str, ...],
        says: str,
    ) -> None:
        write_model(tmp_path / "other", "lamp")
        write_model(tmp_path / "more", "bulb")
        (lamps / "file").write_text("in the way")
        monkeypatch.setattr(command, "_evaluate", lambda *given: pytest.fail("something ran"))
        finished = call(*words)
        assert finished.status == 1
        assert finished.stdout == ""
        (sentence,) = finished.sentences
        assert says in sentence

    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("--model",),
            ("--model", "a", "--provider", "tpu"),
            ("--model", "a", "--threads", "0"),
        ],
    )
    def test_wrong_usage_is_exit_status_2(self, call: Call, words: tuple[str, ...]) -> None:
        finished = call(*words)
        assert finished.status == 2
        assert finished.stdout == "" and "Traceback" not in finished.stderr

    @pytest.mark.parametrize(
        ("missing", "words", "named"),
        [
            ({"sklearn"}, (), "sklearn"),
            ({"scipy", "jinja2"}, (), "scipy"),
            ({"scipy", "jinja2"}, ("--report", "r"), "scipy, jinja2"),
        ],
    )
    def test_a_missing_extra_gives_the_pip_line(
        self,
        call: Call,
        monkeypatch: pytest.MonkeyPatch,
        missing: set[str],
        words: tuple[str, ...],
        named: str,
    ) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in missing else real(name)
        )
        finished = call("--model", "models", *words)
        assert finished.status == 1
        assert finished.sentences == [
            f"error: evaluate-model needs {named}. Install it with: "
            'pip install "patchline[evaluation]"'
        ]


class TestReport:
    @pytest.fixture
    def written(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What the report was given; the engine must still run when a class is built."""
        seen: list[Any] = []

        def build(evaluation: Evaluation, engine: Any) -> str:
            assert engine.infer(np.zeros((1, SIZE, SIZE, 3), np.uint8))
            return evaluation.manifest.class_name

        def write_report(classes: list[str], folder: Path, failures: dict[str, str]) -> Path:
            seen.append((list(classes), folder, failures))
            return folder / "index.html"

        page = types.ModuleType("page")
        page.build_class_report = build  # type: ignore[attr-defined]
        page.write_report = write_report  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "patchline.export.evaluation.report.page", page)
        return seen

    @pytest.mark.usefixtures("two")
    def test_it_holds_the_classes_that_were_evaluated(
        self, call: Call, tmp_path: Path, written: list[Any]
    ) -> None:
        manifest_path(tmp_path / "models" / "bulb.onnx").unlink()
        finished = call("--model", "models", "--report", "out", "--json")
        assert finished.status == 1
        (classes, folder, failures) = written[0]
        assert (classes, folder, list(failures)) == (["lamp"], Path("out"), ["bulb"])
        assert "bulb.json is missing" in failures["bulb"]
        assert "report: out/index.html" in finished.stderr
        assert list(finished.document["classes"]) == ["bulb", "lamp"]

    @pytest.mark.usefixtures("lamps")
    def test_without_the_option_there_is_none(self, call: Call, written: list[Any]) -> None:
        assert call("--model", "models").status == 0
        assert written == []


def test_help_names_every_option_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from patchline.export.cli.evaluate_model import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'scipy', 'sklearn', 'matplotlib'}\n"
        "assert not (heavy | {'numpy'}) & sys.modules.keys()\n"
    )
    finished = run_program(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "NO_COLOR": "1"},
    )
    options = ("--model", "--data", "--cls", "--fpr-limit", "--report", "--provider", "--threads")
    for option in (*options, "--json"):
        assert option in finished.stdout
