"""``--precision`` as a user goes about it: convert, again without a fit, refused, forced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from patchline.calibration.cli import calibrate_threshold
from patchline.export.cli import evaluate_model, export_classes, export_model
from patchline.export.precision.converted import GivenGraph
from patchline.export.precision.gate import LIMITS
from patchline.export.state import load_state
from patchline.runtime.bank import load_bank
from patchline.runtime.contract import Quantization, load_manifest
from patchline.runtime.engine import open_engine
from patchline.runtime.image_file import read_image
from tests.commands import Caller

from .drawn import CLASS_NAME, write_class, write_good, write_picture

QUICK_WORDS = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")
ROWS = ("--coreset-ratio", "0.4")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Caller:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Random weights and 64 pixels: what is tested is the way, not how well they quantise.
    wide = replace(LIMITS["int8"], rank_correlation=0.2, map_error=0.5, verdict_changes=0.5)
    wide = replace(wide, image_auroc=1.0, pixel_auroc=1.0)
    monkeypatch.setitem(LIMITS, "int8", wide)
    monkeypatch.setitem(LIMITS, "fp16", wide)

    return Caller(monkeypatch, capsys)


def words_of(data: Path, out: Path, *more: str) -> tuple[object, ...]:
    return ("--cls", CLASS_NAME, "--data", data, "--out", out, "--device", "cpu", *more)


def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_classes, "fit", lambda *rest: pytest.fail("it was fitted"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_is_converted_without_a_fit_and_works_as_any(
    call: Caller, drawn_data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    out, state = model.parent, load_state(model.with_suffix(".safetensors"))
    no_fit(monkeypatch)
    done = call(export_model, *words_of(drawn_data, out, "--precision", precision, "--json"))
    assert done.status == 0, done.stderr
    assert "made again from" in done.stderr and "without a fit" in done.stderr
    document = done.document
    assert document["precision"] == precision and document["time_ratio"] > 0
    gate = document["conversion"]["gate"]
    assert (gate["images"], gate["labelled_images"], gate["problems"]) == (12, 4, [])
    assert gate["image_auroc_change"] is not None and gate["pixel_auroc_change"] is not None
    quantization = document["conversion"]["quantization"]
    assert (quantization is None) == (precision == "fp16")
    assert (document["parity"] is None) == (precision == "int8")
    # The state is the float32 truth, as it was.
    after = load_state(model.with_suffix(".safetensors"))
    assert after.manifest == state.manifest and (after.memory_bank == state.memory_bank).all()
    manifest = load_manifest(model.with_suffix(".json"))
    assert manifest.normal_scores.source == state.manifest.normal_scores.source
    assert len(manifest.normal_scores.scores) == 12
    with open_engine(model) as engine:
        engine.infer(np.zeros((2, 64, 64, 3), np.uint8))
    evaluated = call(evaluate_model, "--model", model, "--data", drawn_data, "--json")
    assert evaluated.status == 0, evaluated.stderr
    good = drawn_data / CLASS_NAME / "train" / "good"
    calibrated = call(calibrate_threshold, "--model", model, "--images", good, "--json")
    assert calibrated.status == 0, calibrated.stderr
    assert load_manifest(model.with_suffix(".json")).conversion == manifest.conversion
    # And back: of the converted model's threshold nothing is taken over, which is said.
    back = call(export_model, *words_of(drawn_data, out, "--precision", "fp32", "--json"))
    assert back.status == 0 and "Calibrate again" in back.stderr
    assert back.document["threshold"] == json.loads(state.manifest.to_json())["threshold"]


def test_what_differs_is_fitted_anew_and_said(call: Caller, drawn_data: Path, model: Path) -> None:
    words = words_of(drawn_data, model.parent, "--precision", "fp16", "--seed", "5", "--json")
    done = call(export_model, *words, *QUICK_WORDS, *ROWS)
    assert done.status == 0, done.stderr
    assert "fitted anew" in done.stderr and "seed is 5, the model has 0" in done.stderr
    assert done.document["memory_bank"]["seed"] == 5
    assert load_state(model.with_suffix(".safetensors")).manifest.precision == "fp32"


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_other_pictures_are_fitted_anew(
    call: Caller, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = write_class(tmp_path / "data") / "train" / "good"
    if change == "more":
        write_good(folder / "new", 1, first_seed=999)[0].rename(folder / "new.png")
    else:
        (folder / "000.png").unlink()
    from patchline.export.datasets import good_pictures
    from patchline.export.precision.again import plan_job

    pictures = good_pictures(tmp_path / "data", CLASS_NAME)
    job = plan_job(pictures, {"precision": "fp16"}, None, model.parent, must_reuse=False)
    says = {"more": "1 pictures are not in it (new.png)", "fewer": "1 of its pictures are not"}
    assert job.state is None and says[change] in job.note
    held = plan_job(pictures, {"precision": "fp16"}, None, model.parent, must_reuse=True)
    assert held.state is not None and "without a fit" in held.note


def test_the_state_may_lie_elsewhere(
    call: Caller, drawn_data: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_fit(monkeypatch)
    words = words_of(drawn_data, tmp_path / "half", "--precision", "fp16", "--state")
    done = call(export_model, *words, exported.parent)
    assert done.status == 0, done.stderr
    assert "fp16, memory bank" in done.stdout and "rank correlation" in done.stdout
    assert "x FP32's time here" in done.stdout
    names = {path.name for path in (tmp_path / "half").iterdir()}
    assert names == {f"{CLASS_NAME}.{end}" for end in ("onnx", "json", "safetensors")}
    half, whole = (tmp_path / "half" / exported.name).stat().st_size, exported.stat().st_size
    assert half <= 0.55 * whole
    refused = call(export_model, *words, exported.parent, "--neighbors", "5")
    assert refused.status == 1 and "neighbors is 5, the model has 9" in refused.stderr
    assert "leave --state out to fit anew" in refused.stderr
    nowhere = call(export_model, *words, tmp_path / "none")
    assert nowhere.status == 1 and "does not exist" in nowhere.stderr


def test_the_gate_refuses_and_force_says_so(
    call: Caller, drawn_data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(LIMITS["int8"], rank_correlation=1.1)
    monkeypatch.setitem(LIMITS, "int8", strict)
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    words = words_of(drawn_data, model.parent, "--precision", "int8")
    refused = call(export_model, *words)
    assert refused.status == 1
    last = refused.stderr.rstrip().splitlines()[-1]
    assert "judges otherwise than in float32. the rank correlation of 16 pictures' scores" in last
    assert "--force writes it all the same" in last
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before
    forced = call(export_model, *words, "--force", "--json")
    assert forced.status == 0, forced.stderr
    assert "written by --force in spite of the gate" in forced.stderr
    conversion = load_manifest(model.with_suffix(".json")).conversion
    assert conversion is not None and conversion.gate.is_forced and conversion.gate.problems


def test_a_graph_for_every_product(
    call: Caller, drawn_data: Path, tmp_path: Path, model: Path
) -> None:
    more = ("--bank", "external", "--state", str(model.parent), "--json")
    out = tmp_path / "external"
    half = call(export_model, *words_of(drawn_data, out, "--precision", "fp16", *more))
    assert half.status == 0, half.stderr
    int8 = call(export_model, *words_of(drawn_data, out, "--precision", "int8", *more))
    assert int8.status == 0, int8.stderr
    graph = out / "resnet18-64-int8.onnx"
    assert int8.document["graph" if "graph" in int8.document else "model"] == str(graph)
    assert (out / "resnet18-64-fp16.onnx").exists()
    assert load_bank(out / f"{CLASS_NAME}.bank").manifest.precision == "int8"
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert "QuantizeLinear" in operators
    before = graph.read_bytes()
    again = call(export_model, *words_of(drawn_data, out, "--precision", "int8", *more))
    assert again.status == 0 and graph.read_bytes() == before
    assert "is there already and stays as it is" in again.stderr
    assert again.document["conversion"]["quantization"]["images"] == 12
    with open_engine(graph, bank=out / f"{CLASS_NAME}.bank") as engine:
        engine.infer(np.zeros((1, 64, 64, 3), np.uint8))


def test_sensitivity_of_layers(call: Caller, drawn_data: Path, model: Path, tmp_path: Path) -> None:
    chart = tmp_path / "layers.svg"
    words = words_of(drawn_data, model.parent, "--precision", "int8", "--sensitivity", str(chart))
    done = call(export_model, *words, "--float-layers", "first", "--json")
    assert done.status == 0, done.stderr
    assert chart.read_text().lstrip().startswith("<?xml") and "one layer at a time" in done.stderr
    (first,) = done.document["conversion"]["quantization"]["float_layers"]
    assert first in done.stderr
    wrong = call(export_model, *words_of(drawn_data, model.parent, "--sensitivity", str(chart)))
    assert wrong.status == 1 and "add --precision int8" in wrong.stderr


def test_an_extended_model_is_float32_again_with_a_word(
    call: Caller, drawn_data: Path, model: Path, tmp_path: Path
) -> None:
    words = words_of(drawn_data, model.parent, "--precision", "fp16")
    assert call(export_model, *words).status == 0
    write_good(tmp_path / "more", 3, first_seed=4000)
    done = call(
        export_model, "--cls", CLASS_NAME, "--extend", tmp_path / "more", "--out", model.parent
    )
    assert done.status == 0, done.stderr
    assert "the model was fp16 and is replaced by one in float32" in done.stderr
    assert "Calibrate again" not in done.stderr
    assert load_manifest(model.with_suffix(".json")).precision == "fp32"
    # The pictures of the extension have gone elsewhere: still no fit, as they lie in the state.
    again = call(export_model, *words)
    assert again.status == 0 and "without a fit" in again.stderr


class TestOneGraphOfSeveralClasses:
    """``gasket``, and ``night``: the same parts with little light of another colour."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        root = tmp_path / "data"
        write_good(root / CLASS_NAME, 8)
        for path in write_good(root / "night", 9, first_seed=700):
            picture = read_image(path) // 6
            picture[..., 0] *= 5
            write_picture(path, picture)
        return root

    @staticmethod
    def words_of(data: Path, out: Path, *classes: str) -> tuple[object, ...]:
        words = ("--data", data, "--out", out, "--bank", "external", "--precision", "int8")
        method = ("--calibration-method", "minmax", "--device", "cpu", "--json", *ROWS)
        return ("--cls", *classes, *words, *method, *QUICK_WORDS)

    @staticmethod
    def scales(out: Path) -> dict[str, float]:
        """Of the activations of the graph."""
        graph = onnx.load(out / "resnet18-64-int8.onnx").graph
        found = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
        return {
            name: float(value)
            for name, value in found.items()
            if name.endswith("_scale") and not value.shape
        }

    def test_its_ranges_cover_all_classes_of_the_call(
        self, call: Caller, data: Path, tmp_path: Path
    ) -> None:
        both = tmp_path / "both"
        done = call(export_model, *self.words_of(data, both, CLASS_NAME, "night"))
        assert done.status == 0, done.stderr
        assert done.stderr.count("Calibrating") == 1
        how = [line["conversion"]["quantization"] for line in done.lines]
        assert how[0] == how[1]
        assert (how[0]["images"], how[0]["classes"]) == (17, [CLASS_NAME, "night"])
        for name in (CLASS_NAME, "night"):
            conversion = load_bank(both / f"{name}.bank").manifest.conversion
            assert conversion is not None and conversion.quantization is not None
            assert conversion.quantization.classes == (CLASS_NAME, "night")
        assert f"were found on 17 pictures of {CLASS_NAME}, night" in done.stderr
        alone = []
        for name in (CLASS_NAME, "night"):
            out = tmp_path / name
            done = call(export_model, *self.words_of(data, out, name), "--state", both)
            assert done.status == 0, done.stderr
            assert done.document["conversion"]["quantization"]["classes"] == [name]
            alone.append(self.scales(out))
        covering = self.scales(both)
        for tensor, scale in covering.items():
            assert scale == max(found[tensor] for found in alone), tensor
        for found in alone:
            assert min(found[tensor] / covering[tensor] for tensor in covering) < 0.9

    def test_the_total_is_shared_and_a_class_that_comes_later_takes_the_graph_as_it_is(
        self, call: Caller, data: Path, tmp_path: Path
    ) -> None:
        write_good(data / "later", 4, first_seed=300)
        (data / "night" / "004.png").write_bytes(b"broken")
        words = ("--calibration-images", "8", "--skip-unreadable")
        out = tmp_path / "models"
        done = call(export_model, *self.words_of(data, out, "night", CLASS_NAME), *words)
        assert done.status == 0, done.stderr
        how = done.lines[0]["conversion"]["quantization"]
        assert (how["images"], how["classes"]) == (8, [CLASS_NAME, "night"])
        assert done.stderr.count("004.png") == 1
        graph = (out / "resnet18-64-int8.onnx").read_bytes()
        more = call(export_model, *self.words_of(data, out, "later"), "--calibration-images", "40")
        assert more.status == 0, more.stderr
        assert more.document["conversion"]["quantization"] == how
        assert "stays as it is" in more.stderr and "Calibrating" not in more.stderr
        assert (out / "resnet18-64-int8.onnx").read_bytes() == graph

    def test_fewer_pictures_than_classes_are_refused_before_the_first_fit(
        self, call: Caller, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        no_fit(monkeypatch)
        names = [f"part{i}" for i in range(9)]
        for name in names:
            write_good(data / name, 2)
        words = self.words_of(data, tmp_path / "models", *names)
        done = call(export_model, *words, "--calibration-images", "8")
        assert done.status == 1
        assert "8 calibration images were asked for, and 9 classes share the" in done.sentence


def test_an_older_record_of_a_quantisation_does_not_say_whose_pictures() -> None:
    old = {"method": "minmax", "images": 12, "sha256": "0" * 64, "float_layers": []}
    how = Quantization.model_validate_json(json.dumps(old))
    assert how.classes == ()
    assert GivenGraph(Path("a.onnx"), how).note.endswith("12 pictures of the class that was first")
