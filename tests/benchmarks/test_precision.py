"""The benchmark of FP16 and INT8 at a tiny size: its figures are those of the exported files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from patchline.benchmarks import precision, precision_models
from patchline.benchmarks.precision import bounded_test_set
from patchline.benchmarks.precision_models import Models, direct_threshold, export_all
from patchline.export.datasets import good_pictures, labelled_pictures
from patchline.export.demo.pictures import write_demo_data
from patchline.export.evaluation.test_set import load_test_set
from patchline.export.precision.gate import LIMITS
from patchline.runtime.contract import ModelSize, load_manifest, manifest_path
from patchline.runtime.progress import SilentSteps
from tests.benchmarks.smoke import TINY, only_result, smoke
from tests.commands import Caller
from tests.export.made_once import trace_once

CLASS_NAME = "gasket"
FIELDS: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "image_size": (64, 64),
    "coreset_ratio": 0.1,
}
ALL = {"fp32", "fp16", "int8"}


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """INT8 ranges of these tests may not be found by, or left to, anybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_demo_data(folder, good=12, test_good=4, test_defective=6, size=(128, 128))
    return folder


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """All precisions, by a gate that refuses INT8."""
    strict = replace(LIMITS["int8"], map_error=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "int8", strict)
        trace_once(patch)  # the float32 graph of every precision is the same
        pictures, folder = good_pictures(data, CLASS_NAME), tmp_path_factory.mktemp("models")
        return export_all(pictures, FIELDS, data, folder, SilentSteps())


def test_smoke_precision(
    models: Models,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[dict[str, Any]] = []

    def exported(pictures: object, fields: dict[str, Any], *rest: object) -> Models:
        asked.append(fields)
        return models

    monkeypatch.setattr(precision, "export_all", exported)
    words = ("--data", data, *TINY, "--coreset-ratio", 0.1, "--direct-threshold", "--no-plans")
    call = Caller(monkeypatch, capsys)
    assert call(precision, *words, "--rounds", 3, "--out", tmp_path).status == 0
    assert [FIELDS.items() <= fields.items() for fields in asked] == [True]
    results = only_result(tmp_path)
    assert (results["plans"], results["image_size_px"]) == (None, 64)
    found = results["classes"][CLASS_NAME]["precisions"]
    assert found.keys() == ALL
    for figures in found.values():
        assert figures["plan_bytes"] is None
        assert figures["latency"]["runs"] == 3
        assert (figures["good"], figures["defective"]) == (4, 6)
        assert all(0 <= figures[name] <= 1 for name in ("image_auroc", "pixel_auroc", "aupro"))
        assert figures["threshold"]["value"] > 0
    assert found["fp32"]["gate"] is None
    assert found["fp32"]["file_over_fp32"] == found["fp32"]["latency_over_fp32"] == 1
    assert found["fp16"]["file_over_fp32"] < 0.55
    for name in ("fp16", "int8"):
        gate = found[name]["gate"]
        assert (gate["images"], gate["labelled_images"]) == (12, 10)
        change = found[name]["pixel_auroc"] - found["fp32"]["pixel_auroc"]
        assert gate["pixel_auroc_change"] == pytest.approx(change, abs=1e-4)
    assert found["int8"]["gate"]["is_forced"]
    assert found["int8"]["quantization"]["images"] == 12
    carried, direct = found["fp16"]["threshold"], found["fp16"]["direct_threshold"]
    assert carried == pytest.approx(direct, rel=0.02)
    assert "direct_threshold" not in found["int8"]


@pytest.mark.slow
def test_the_command_builds_plans_and_agrees_with_the_benchmark_of_accuracy(
    data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    words = ("--data", data, *TINY, "--coreset-ratio", 0.1)
    results = smoke("precision", tmp_path / "precision", *words, "--rounds", 2)
    assert results["plans"].startswith("TensorRT for RTX ")
    found = results["classes"][CLASS_NAME]["precisions"]
    whole = found["fp32"]["plan_bytes"]
    assert all(0 < found[name]["plan_bytes"] < whole for name in ("fp16", "int8"))
    accuracy = smoke("accuracy", tmp_path / "accuracy", *words)["classes"][CLASS_NAME]
    for name in ("image_auroc", "pixel_auroc", "aupro", "false_alarms", "found"):
        assert found["fp32"][name] == pytest.approx(accuracy[name]), name
    assert found["fp32"]["threshold"]["value"] == pytest.approx(accuracy["threshold"])


def test_each_file_is_of_its_precision_and_of_one_fit(models: Models) -> None:
    manifests = {name: load_manifest(manifest_path(path)) for name, path in models.paths.items()}
    assert manifests.keys() == ALL
    assert all(manifest.precision == name for name, manifest in manifests.items())
    assert len({manifest.training_set.sha256 for manifest in manifests.values()}) == 1
    assert len({manifest.distance_statistics for manifest in manifests.values()}) == 1
    operators = {
        name: {node.op_type for node in onnx.load(path).graph.node}
        for name, path in models.paths.items()
    }
    assert {name for name, found in operators.items() if "QuantizeLinear" in found} == {"int8"}


def test_what_the_gate_refuses_is_measured_with_its_problems(models: Models) -> None:
    gate = models.converted["int8"].gate
    assert gate.is_forced
    assert len(gate.problems) == 1
    assert "the anomaly maps differ by" in gate.problems[0]
    assert models.paths["int8"].is_file()
    assert not models.converted["fp16"].gate.problems


def test_the_direct_threshold_is_the_fits_own_where_nothing_is_converted(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = direct_threshold(models, SilentSteps())
    monkeypatch.setattr(precision_models, "half_detector", lambda detector, bank: detector)
    whole = direct_threshold(models, SilentSteps())
    own = models.fitted.threshold
    assert (whole.value, whole.map_value) == pytest.approx((own.value, own.map_value), rel=1e-5)
    assert whole.rule == own.rule
    assert half.value != whole.value


def test_a_bounded_test_set_keeps_both_kinds_and_their_masks(data: Path, tmp_path: Path) -> None:
    folder = bounded_test_set(data, CLASS_NAME, 4, tmp_path / "links")
    chosen = labelled_pictures(folder, CLASS_NAME)
    assert len(chosen) == 4
    assert {picture.is_defective for picture in chosen} == {True, False}
    assert all((picture.mask is not None) == picture.is_defective for picture in chosen)
    test_set = load_test_set(folder, CLASS_NAME, ModelSize(height=64, width=64))
    assert (test_set.problems, test_set.notes) == ((), ())
    assert bounded_test_set(data, CLASS_NAME, None, tmp_path / "none") == data
    everything = bounded_test_set(data, CLASS_NAME, 100, tmp_path / "all")
    assert len(labelled_pictures(everything, CLASS_NAME)) == 10
