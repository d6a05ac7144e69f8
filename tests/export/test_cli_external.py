"""``--bank``, as a user goes about it: export, evaluate, calibrate, extend, and back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from patchline.calibration.cli import calibrate_threshold
from patchline.calibration.threshold import derive_threshold
from patchline.export.cli import evaluate_model, export_model
from patchline.export.cli.model_files import ModelFiles, models_by_class
from patchline.export.extend import current_threshold, load_base, settings_of
from patchline.export.making import make_class
from patchline.export.state import load_state
from patchline.runtime.bank import load_bank, save_bank
from patchline.runtime.contract import load_manifest
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, ModelError
from tests.commands import Caller

from .drawn import CLASS_NAME, write_class, write_good

QUICK_WORDS = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")
GRAPH = "resnet18-64"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five and four pictures, with test sets; only to be read."""
    root = tmp_path_factory.mktemp("data")
    write_class(root, good=5)
    write_class(root, "lid", good=4)
    return root


@pytest.fixture(scope="module")
def exported_once(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What ``export-model --cls all --bank external --json`` writes, and says as ``said``."""
    out = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        words = ("--cls", "all", "--data", data, "--out", out, "--bank", "external", *QUICK_WORDS)
        patch.setattr(sys, "argv", ["export-model", *map(str, words), "--coreset-ratio", "0.3"])
        with pytest.raises(SystemExit) as left:
            export_model.main()
        assert not left.value.code
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def models(exported_once: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with both classes, to be changed at will."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name, content in exported_once.items():
        (folder / name).write_bytes(content)
    return folder


class TestExport:
    def test_all_files_of_both_classes(self, exported_once: dict[str, bytes]) -> None:
        assert sorted(exported_once) == [
            *("gasket.bank", "gasket.job.json", "gasket.safetensors"),
            *("lid.bank", "lid.job.json", "lid.safetensors"),
            *(f"{GRAPH}.json", f"{GRAPH}.onnx"),
        ]

    def test_json_names_graph_and_bank(self, call: Caller, data: Path, models: Path) -> None:
        before = (models / f"{GRAPH}.onnx").read_bytes()
        done = call(
            export_model, "--cls", "lid", "--data", data, "--out", models, "--bank", "external",
            *QUICK_WORDS, "--coreset-ratio", "0.2", "--json",
        )  # fmt: skip
        assert done.status == 0, done.stderr
        assert done.document["model"] == str(models / f"{GRAPH}.onnx")
        assert done.document["bank"] == str(models / "lid.bank")
        assert (done.document["class"], done.document["onnx"]) == ("lid", None)
        assert done.document["memory_bank"]["rows"] == int(4 * 64 * 0.2)
        assert (models / f"{GRAPH}.onnx").read_bytes() == before

    def test_a_settings_file_may_say_it_and_the_table_names_both(
        self,
        call: Caller,
        data: Path,
        models: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("COLUMNS", "300")
        (tmp_path / "line.toml").write_text('bank = "external"\nbackbone = "resnet18"\n')
        words = ("--config", tmp_path / "line.toml", "--coreset-ratio", "0.2", *QUICK_WORDS[2:])
        done = call(export_model, "--cls", "lid", "--data", data, "--out", models, *words)
        assert done.status == 0, done.stderr
        assert done.stdout.split()[0] == str(models / "lid.bank")
        rows = [line.split("│")[1:3] for line in done.stdout.splitlines() if "│" in line]
        table = {name.strip(): value.strip() for name, value in rows}
        assert table["graph of all classes"].startswith(f"{models / GRAPH}.onnx, ")

    def test_another_score_is_refused_before_the_fit(
        self, call: Caller, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(make_class, "fit", lambda *args: pytest.fail("it was fit"))
        words = ("--cls", "lid", "--data", data, "--out", models, "--bank", "external")
        done = call(export_model, *words, *QUICK_WORDS, "--score", "distance")
        assert done.status == 1
        assert "score: noise-response, not distance. Give another --out" in done.sentence

    def test_an_unknown_place_is_wrong_usage(self, call: Caller) -> None:
        assert call(export_model, "--cls", "lid", "--bank", "elsewhere").status == 2


class TestEvaluate:
    def test_several_banks_are_several_classes(
        self, call: Caller, data: Path, models: Path
    ) -> None:
        graph, banks = models / f"{GRAPH}.onnx", (models / "lid.bank", models / "gasket.bank")
        once = call(evaluate_model, "--model", graph, "--bank", *banks, "--data", data, "--json")
        assert once.status == 0, once.stderr
        assert list(once.document["classes"]) == ["lid", CLASS_NAME]
        twice = [word for bank in banks for word in ("--bank", bank)]
        again = call(evaluate_model, "--model", graph, *twice, "--data", data, "--json")
        assert again.document == once.document
        folder = call(evaluate_model, "--model", models, "--data", data, "--json")
        assert folder.document["classes"] == once.document["classes"]

    def test_the_report_is_of_the_bank(
        self, call: Caller, data: Path, models: Path, tmp_path: Path
    ) -> None:
        done = call(
            evaluate_model, "--model", models / f"{GRAPH}.onnx", "--bank", models / "lid.bank",
            "--data", data, "--report", tmp_path / "report",
        )  # fmt: skip
        assert done.status == 0, done.stderr
        assert "lid" in done.stdout and CLASS_NAME not in done.stdout
        assert (tmp_path / "report" / "index.html").is_file()

    def test_a_graph_without_a_bank(self, call: Caller, data: Path, models: Path) -> None:
        done = call(evaluate_model, "--model", models / f"{GRAPH}.onnx", "--data", data)
        assert done.status == 1 and "holds no memory bank: give one product's" in done.sentence

    def test_one_damaged_bank_does_not_stop_the_others(
        self, call: Caller, data: Path, models: Path
    ) -> None:
        (models / "lid.bank").write_bytes(b"damaged")
        done = call(evaluate_model, "--model", models, "--data", data, "--json")
        assert done.status == 1
        assert done.document["classes"][CLASS_NAME]["image_auroc"] is not None
        assert "cannot read" in done.document["problems"]["lid"][0]


class TestModelFiles:
    def test_a_folder_of_both_kinds(self, models: Path, exported: Path) -> None:
        (models / "gasket.bank").unlink()
        for path in exported.parent.iterdir():
            (models / path.name).write_bytes(path.read_bytes())
        assert models_by_class([models]) == {
            CLASS_NAME: ModelFiles(models / "gasket.onnx"),
            "lid": ModelFiles(models / f"{GRAPH}.onnx", models / "lid.bank"),
        }

    def test_a_class_of_both_kinds_is_two_models(self, models: Path, exported: Path) -> None:
        for path in exported.parent.iterdir():
            (models / path.name).write_bytes(path.read_bytes())
        with pytest.raises(ConfigurationError, match=r"gasket\.onnx and .*gasket\.bank are both"):
            models_by_class([models])

    def test_banks_whose_graph_was_not_copied(self, models: Path, exported: Path) -> None:
        (models / f"{GRAPH}.onnx").unlink()
        (models / "lamp.onnx").write_bytes(exported.read_bytes())
        (models / "lamp.json").write_bytes(exported.with_suffix(".json").read_bytes())
        with pytest.raises(ModelError, match=r"gasket\.bank is there without its graph"):
            models_by_class([models])

    def test_a_graph_whose_banks_were_not_copied(self, models: Path) -> None:
        for path in models.glob("*.bank"):
            path.unlink()
        with pytest.raises(ConfigurationError, match="holds no memory bank"):
            models_by_class([models])

    def test_a_bank_that_no_graph_fits_is_not_passed_over(self, models: Path) -> None:
        bank = load_bank(models / "lid.bank")
        backbone = bank.manifest.backbone.model_copy(update={"name": "resnet34"})
        named = {"class_name": "old", "backbone": backbone}
        save_bank(bank.with_manifest(bank.manifest.model_copy(update=named)), models / "other.bank")
        found = models_by_class([models])
        assert found["old"] == ModelFiles(models / f"{GRAPH}.onnx", models / "other.bank")

    def test_a_bank_with_two_graphs(self, models: Path) -> None:
        other = models / "other.onnx"
        other.write_bytes((models / f"{GRAPH}.onnx").read_bytes())
        other.with_suffix(".json").write_bytes((models / f"{GRAPH}.json").read_bytes())
        with pytest.raises(ConfigurationError, match="--bank goes with one graph, and --model gi"):
            models_by_class([models / f"{GRAPH}.onnx", other], [models / "lid.bank"])

    def test_a_bank_for_a_model_with_its_own(self, models: Path, exported: Path) -> None:
        with pytest.raises(ConfigurationError, match="holds its own memory bank"):
            models_by_class([exported], [models / "lid.bank"])

    def test_a_bank_that_does_not_exist(self, models: Path) -> None:
        with pytest.raises(ModelError, match=r"none\.bank does not exist"):
            models_by_class([models / f"{GRAPH}.onnx"], [models / "none.bank"])


class TestCalibrate:
    def test_the_threshold_goes_into_the_bank_and_nowhere_else(
        self, call: Caller, models: Path
    ) -> None:
        graph, path = models / f"{GRAPH}.onnx", models / "lid.bank"
        before = {file.name: file.read_bytes() for file in models.iterdir()}
        old = load_bank(path)
        words = ("--model", graph, "--bank", path, "--false-alarm-rate", "0.3", "--json")
        done = call(calibrate_threshold, *words)
        assert done.status == 0, done.stderr
        new = load_bank(path)
        assert new.manifest.threshold == derive_threshold(old.manifest.normal_scores, 0.3)
        assert new.manifest.model_copy(update={"threshold": old.manifest.threshold}) == old.manifest
        assert (done.document["model"], done.document["bank"]) == (str(graph), str(path))
        after = {file.name: file.read_bytes() for file in models.iterdir()}
        assert {name for name in after if after[name] != before.get(name)} == {"lid.bank"}
        with open_engine(graph, bank=path) as engine:
            assert engine.manifest.threshold == new.manifest.threshold

    def test_pictures_of_the_line_are_judged_by_the_bank(
        self, call: Caller, models: Path, tmp_path: Path
    ) -> None:
        write_good(tmp_path / "line", 6, first_seed=8000)
        words = ("--model", models / f"{GRAPH}.onnx", "--bank", models / "lid.bank")
        done = call(calibrate_threshold, *words, "--images", tmp_path / "line")
        assert done.status == 0, done.stderr
        normal = load_bank(models / "lid.bank").manifest.normal_scores
        assert normal.source == "line" and len(normal.scores) == 6
        assert "lid.bank" in done.stdout.replace("\n", "")

    def test_a_dry_run_and_a_missing_bank(self, call: Caller, models: Path) -> None:
        before = (models / "lid.bank").read_bytes()
        words = ("--model", models / f"{GRAPH}.onnx", "--false-alarm-rate", "0.3")
        assert (
            call(calibrate_threshold, *words, "--bank", models / "lid.bank", "--dry-run").status
            == 0
        )
        assert (models / "lid.bank").read_bytes() == before
        done = call(calibrate_threshold, *words)
        assert done.status == 1 and "holds no memory bank" in done.sentence


class TestExtend:
    @pytest.fixture
    def added(self, tmp_path: Path) -> Path:
        write_good(tmp_path / "more", 3, first_seed=4000)
        return tmp_path / "more"

    def test_it_stays_external_and_the_threshold_is_that_of_the_bank(
        self, call: Caller, models: Path, added: Path
    ) -> None:
        bank = load_bank(models / "lid.bank")
        line = derive_threshold(bank.manifest.normal_scores, 0.2)
        save_bank(
            bank.with_manifest(bank.manifest.model_copy(update={"threshold": line})),
            models / "lid.bank",
        )
        graph = (models / f"{GRAPH}.onnx").read_bytes()
        base = load_base(models, "lid")
        assert current_threshold(models, base) == line
        assert settings_of(base, {}).bank == "external"
        done = call(export_model, "--cls", "lid", "--extend", added, "--out", models)
        assert done.status == 0, done.stderr
        assert f"the threshold {line.value:.4g}" in done.stderr
        after = load_bank(models / "lid.bank").manifest
        assert (after.training_set.images, after.threshold.false_alarm_rate) == (7, 0.2)
        assert load_state(models / "lid.safetensors").bank == "external"
        assert (models / f"{GRAPH}.onnx").read_bytes() == graph
        assert not (models / "lid.onnx").exists()

    def test_embedded_when_that_is_said(self, call: Caller, models: Path, added: Path) -> None:
        words = ("--cls", "lid", "--extend", added, "--out", models, "--bank", "embedded")
        done = call(export_model, *words)
        assert done.status == 0, done.stderr
        assert load_manifest(models / "lid.json").training_set.images == 7
        assert load_state(models / "lid.safetensors").bank == "embedded"
        assert "lid.bank: of an earlier export of lid" in done.stderr
        with open_engine(models / "lid.onnx") as engine:
            assert engine.manifest.class_name == "lid"

    def test_a_damaged_bank_is_not_passed_over(self, models: Path) -> None:
        (models / "lid.bank").write_bytes(b"damaged")
        with pytest.raises(ModelError, match="cannot read"):
            current_threshold(models, load_base(models, "lid"))

    def test_a_bank_that_is_gone_leaves_the_states_threshold(self, models: Path) -> None:
        base = load_base(models, "lid")
        (models / "lid.bank").unlink()
        assert current_threshold(models, base) == base.manifest.threshold
