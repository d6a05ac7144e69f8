"""``--precision`` as a user goes about it: convert, again without a fit, refused, forced."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from patchline.calibration.activations import PERCENTILE
from patchline.calibration.cli import calibrate_threshold
from patchline.export import neighbors
from patchline.export.cli import evaluate_model, export_model
from patchline.export.making import make_class
from patchline.export.precision.converted import Converted, GivenGraph
from patchline.export.precision.form import Form
from patchline.export.precision.gate import LIMITS
from patchline.export.precision.trial import Trial
from patchline.export.state import load_state
from patchline.runtime.bank import load_bank
from patchline.runtime.contract import Quantization, load_manifest, parse_manifest
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
    monkeypatch.setattr(make_class, "fit", lambda *rest: pytest.fail("it was fitted"))


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
    rule = "carried over from the float32 model's 12 cross-fitted scores of good pictures"
    assert rule in manifest.threshold.rule and manifest.normal_scores.carried_over
    assert "carried over" not in state.manifest.threshold.rule
    conversion = manifest.conversion
    assert conversion is not None and conversion.gate.limits is not None
    assert conversion.gate.limits.model_dump() == asdict(LIMITS[manifest.precision])
    assert conversion.gate.time_ratio == document["time_ratio"]
    assert (conversion.gate.left_out, conversion.half_bank_problems) == (0, ())
    if conversion.quantization is not None:
        assert (conversion.quantization.method, conversion.quantization.percentile) == (
            "percentile",
            PERCENTILE,
        )
    with open_engine(model) as engine:
        engine.infer(np.zeros((2, 64, 64, 3), np.uint8))
    evaluated = call(evaluate_model, "--model", model, "--data", drawn_data, "--json")
    assert evaluated.status == 0, evaluated.stderr
    good = drawn_data / CLASS_NAME / "train" / "good"
    calibrated = call(calibrate_threshold, "--model", model, "--images", good, "--json")
    assert calibrated.status == 0, calibrated.stderr
    line = load_manifest(model.with_suffix(".json"))
    assert line.conversion == manifest.conversion
    assert "carried over" not in line.threshold.rule and not line.normal_scores.carried_over
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
    assert names == {f"{CLASS_NAME}.{end}" for end in ("onnx", "json", "safetensors", "job.json")}
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
    assert f">{CLASS_NAME}: INT8, one layer at a time" in chart.read_text()
    wrong = call(export_model, *words_of(drawn_data, model.parent, "--sensitivity", str(chart)))
    assert wrong.status == 1 and "add --precision int8" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--precision", "fp16", "--float-layers", "first", "--calibration-images", "20"),
            "--float-layers and --calibration-images are of INT8, and this export is FP16",
        ),
        (
            ("--calibration-method", "minmax"),
            "--calibration-method is of INT8, and this export is FP32: add --precision int8, or "
            "leave it out",
        ),
        (("--force",), "--force writes a converted model that the gate refuses, and this export"),
        (
            ("--precision", "int8", "--sensitivity", "layers.pdf", "--seed", "7"),
            "layers.pdf ends in '.pdf', expected one of .svg, .png",
        ),
        (
            ("--precision", "int8", "--float-layers", "layer1.0.conv9", "--seed", "7"),
            "no layer 'layer1.0.conv9' to keep in float. Did you mean layer1.0.conv",
        ),
    ],
)
def test_options_that_do_nothing_or_cannot_be_are_refused_before_the_fit(
    call: Caller,
    drawn_data: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    says: str,
) -> None:
    no_fit(monkeypatch)
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    done = call(export_model, *words_of(drawn_data, model.parent, *words, *QUICK_WORDS, *ROWS))
    assert done.status == 1
    assert says in done.sentence
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before


def test_a_settings_file_may_hold_what_another_precision_needs(
    call: Caller, drawn_data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_fit(monkeypatch)
    settings = tmp_path / "line.toml"
    settings.write_text('precision = "int8"\ncalibration_images = 9\nfloat_layers = ["first"]\n')
    words = words_of(drawn_data, model.parent, "--config", str(settings), "--json")
    half = call(export_model, *words, "--precision", "fp16")
    assert half.status == 0, half.stderr
    assert half.document["precision"] == "fp16"
    int8 = call(export_model, *words)
    assert int8.status == 0, int8.stderr
    assert int8.document["conversion"]["quantization"]["images"] == 9


def test_a_bank_that_half_precision_cannot_hold_stays_in_float32(
    call: Caller, drawn_data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "LARGEST_HALF_NORM", 1e-3)
    words = words_of(drawn_data, model.parent, "--precision", "fp16", "--json")
    done = call(export_model, *words)
    assert done.status == 0, done.stderr
    assert done.document["memory_bank"]["precision"] == "fp32"
    (problem,) = done.document["conversion"]["half_bank_problems"]
    assert problem.startswith("a row of the memory bank has norm")
    assert "take at most 0.001; those in float32 take any" in problem
    assert f"the memory bank stays in float32; in half precision: {problem}" in done.stderr


def test_a_bank_that_the_gate_refuses_in_half_precision_says_its_figures(
    call: Caller, drawn_data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Trial.judge

    def refuse_half(self: Trial, form: Form, given: GivenGraph | None) -> Converted:
        found = judge(self, form, given)
        problems = ("the maps differ by 0.3",) if form.bank == "fp16" else ()
        return replace(found, gate=found.gate.model_copy(update={"problems": problems}))

    monkeypatch.setattr(Trial, "judge", refuse_half)
    done = call(export_model, *words_of(drawn_data, model.parent, "--precision", "fp16", "--json"))
    assert done.status == 0, done.stderr
    assert done.document["memory_bank"]["precision"] == "fp32"
    assert done.document["conversion"]["half_bank_problems"] == ["the maps differ by 0.3"]


def test_a_record_of_an_older_conversion_loads(call: Caller, drawn_data: Path, model: Path) -> None:
    words = words_of(drawn_data, model.parent, "--precision", "int8", "--json")
    document = call(export_model, *words).document
    new = json.loads(load_manifest(model.with_suffix(".json")).to_json())
    for name in ("limits", "left_out", "time_ratio"):
        del new["conversion"]["gate"][name]
    del new["conversion"]["half_bank_problems"], new["normal_scores"]["carried_over"]
    del new["conversion"]["quantization"]["percentile"]
    old = parse_manifest(json.dumps(new), "old.json")
    assert old.conversion is not None and old.conversion.quantization is not None
    assert (old.conversion.gate.limits, old.conversion.gate.time_ratio) == (None, None)
    assert old.conversion.quantization.percentile is None
    assert old.conversion.gate.map_error == document["conversion"]["gate"]["map_error"]


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
        asked = (*self.words_of(data, out, "later"), "--sensitivity", str(tmp_path / "l.svg"))
        more = call(export_model, *asked, "--calibration-images", "40", "--float-layers", "first")
        assert more.status == 1
        assert "resnet18-64-int8.onnx is there already and stays as it is" in more.sentence
        for option in ("--calibration-images", "--calibration-method", "--float-layers"):
            assert option in more.sentence
        assert "and --sensitivity would do nothing: give another --out" in more.sentence
        assert "good pictures" not in more.stderr and not (tmp_path / "l.svg").exists()
        words = self.words_of(data, out, "later")
        at = words.index("--calibration-method")
        more = call(export_model, *words[:at], *words[at + 2 :])
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

    @pytest.mark.parametrize("bank", ["embedded", "external"])
    def test_every_chart_has_a_file_and_a_name_of_its_own(
        self, call: Caller, data: Path, tmp_path: Path, bank: str
    ) -> None:
        words = self.words_of(data, tmp_path / "models", CLASS_NAME, "night")
        chart = tmp_path / "charts" / "layers.svg"
        done = call(export_model, *words, "--bank", bank, "--sensitivity", chart)
        assert done.status == 0, done.stderr
        found = {path.name: path.read_text() for path in chart.parent.iterdir()}
        titles = {
            "embedded": {
                f"layers-{CLASS_NAME}.svg": f">{CLASS_NAME}: INT8, one",
                "layers-night.svg": ">night: INT8, one",
            },
            "external": {"layers.svg": f">{CLASS_NAME}, for one graph with night: INT8, one"},
        }[bank]
        assert set(found) == set(titles)
        for name, title in titles.items():
            assert title in found[name]
            assert f"chart: {chart.with_name(name)}" in done.stderr


def test_an_older_record_of_a_quantisation_does_not_say_whose_pictures() -> None:
    old = {"method": "minmax", "images": 12, "sha256": "0" * 64, "float_layers": []}
    how = Quantization.model_validate_json(json.dumps(old))
    assert how.classes == ()
    note = GivenGraph(Path("a.onnx"), how).note
    assert note.endswith("12 pictures of the class that was first (minmax)")
    kept = how.model_copy(update={"float_layers": ("conv1",)})
    assert GivenGraph(Path("a.onnx"), kept).note.endswith("(minmax; in float: conv1)")
