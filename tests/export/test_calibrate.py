"""Ranges of a graph's backbone: the numbers, the cache, and what has no part in it."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from patchline.calibration import ranges as ranges_module
from patchline.calibration.activations import RangeMethod
from patchline.export.external_bank import ExternalDetector, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx
from patchline.export.precision import calibrate
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.int8 import quantize_backbone
from patchline.export.precision.layers import activations, cut, layers
from patchline.runtime.contract import FRAMES
from patchline.runtime.errors import ConfigurationError, ModelError

from .drawn import CLASS_NAME
from .made_once import to_onnx_once
from .quantizable import LAYERS, SIZE, WEIGHTS, activations_of, frames_of, small_graph, small_ranges


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for path, frame in zip(paths, frames_of(9, seed=4), strict=True):
        assert cv2.imwrite(str(path), frame // 2)  # neither black nor white to the end
    return paths


def naive_limit(values: np.ndarray, method: RangeMethod) -> float:
    share = {"minmax": 1.0, "percentile": 0.99}[method]
    return float(np.quantile(np.abs(values), share, method="inverted_cdf"))


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_ranges_are_those_of_float64(pictures: list[Path], method: RangeMethod) -> None:
    seen: list[int] = []
    found = find_ranges(small_graph(), pictures, SIZE, method, percentile=99.0, advance=seen.append)
    expected = activations_of(frames_of(9, seed=4) // 2)
    assert set(found.limits) == set(expected)
    for name, values in expected.items():
        if name != "pixels":
            bin_width = 2 * np.abs(values).max() / 2048
            assert found.limits[name] == pytest.approx(
                naive_limit(values, method), rel=1e-5, abs=0 if method == "minmax" else bin_width
            )
    assert (found.images, seen) == (9, list(range(1, 10)))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_pixels_have_the_range_of_every_frame(pictures: list[Path], method: RangeMethod) -> None:
    found = find_ranges(small_graph(), pictures, SIZE, method, percentile=60.0)
    black, white = WEIGHTS["shift"].astype(float), 255 * WEIGHTS["scale"].astype(float)
    expected = max(np.abs(black).max(), np.abs(black + white).max())
    assert found.limits["pixels"] == pytest.approx(expected, rel=1e-6)


def test_pictures_are_spread_and_counted(pictures: list[Path]) -> None:
    found = find_ranges(small_graph(), pictures, SIZE, "minmax", images=8)
    again = find_ranges(small_graph(), [*pictures[:7], pictures[8]], SIZE, "minmax", images=100)
    assert found == again
    assert found.images == 8


def test_the_second_time_nothing_is_run(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    found = find_ranges(small_graph(), pictures, SIZE, "entropy", cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(calibrate, "measure", None)
        seen: list[int] = []
        again = find_ranges(
            small_graph(), pictures, SIZE, "entropy", cache=cache, advance=seen.append
        )
        assert (again, seen) == (found, [9])
        other = small_graph(weight_a=2 * WEIGHTS["weight_a"])
        for graph, chosen in ((other, pictures), (small_graph(), pictures[1:])):
            with pytest.raises(TypeError):  # it is looked for, and not found
                find_ranges(graph, chosen, SIZE, "entropy", cache=cache)
    assert len(list(cache.iterdir())) == 1


def test_the_head_and_the_bank_do_not_matter_to_the_cache(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_ranges(small_graph(), pictures, SIZE, "minmax", cache=tmp_path / "cache")
    monkeypatch.setattr(calibrate, "measure", None)
    other = small_graph(bank=-WEIGHTS["bank"])
    assert find_ranges(other, pictures, SIZE, "minmax", cache=tmp_path / "cache") == found


def test_a_damaged_cache_is_said_and_mended(
    pictures: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    found = find_ranges(small_graph(), pictures, SIZE, "minmax", cache=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    with caplog.at_level(logging.WARNING, logger=ranges_module.__name__):
        assert find_ranges(small_graph(), pictures, SIZE, "minmax", cache=cache) == found
    assert "damaged" in caplog.text
    assert file.read_bytes() == whole


def test_bad_arguments_are_refused(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="3 good pictures"):
        find_ranges(small_graph(), pictures[:3], SIZE)
    with pytest.raises(ConfigurationError, match="no calibration method 'max'"):
        find_ranges(small_graph(), pictures, SIZE, "max")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"percentile is 20"):
        find_ranges(small_graph(), pictures, SIZE, percentile=20)
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read"):
        find_ranges(tmp_path / "none.onnx", pictures, SIZE)
    quantized = quantize_backbone(small_graph(), small_ranges())
    with pytest.raises(ModelError, match=r"quantised already.*--precision fp32"):
        find_ranges(quantized, pictures, SIZE)


def test_layers_lie_between_the_first_convolution_and_the_averaging() -> None:
    assert [layer.name for layer in layers(small_graph())] == LAYERS
    assert set(activations(small_graph())) == set(activations_of(frames_of(1)))


def test_a_graph_without_search_or_convolution_is_refused() -> None:
    model = small_graph()
    headless = cut(model, ["patches"])
    with pytest.raises(ModelError, match="no neighbour search"):
        layers(headless)
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.op_type = "Identity"
    with pytest.raises(ModelError, match="no convolution"):
        layers(model)


def test_a_graph_in_half_precision_is_refused() -> None:
    model = small_graph(weight_b=WEIGHTS["weight_b"].astype(np.float16))
    with pytest.raises(ModelError, match="conv_b are not float32"):
        layers(model)


@pytest.mark.parametrize("bank", ["embedded", "external"])
def test_an_exported_graph_is_calibrated_without_its_bank(
    bank: str, fitted: FittedModel, exported: Path, drawn_data: Path, tmp_path: Path
) -> None:
    detector, graph = fitted.detector, exported
    if bank == "external":
        graph = tmp_path / "graph.onnx"
        inputs = graph_inputs(detector.head)
        save_onnx(to_onnx_once(ExternalDetector(detector), detector.embedder.size, inputs), graph)
    # ResNet-18 up to layer 3; the nodes' own names differ between the two graphs.
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    parts = {f"{block}.{part}" for block in blocks for part in ("conv1", "conv2", "add")}
    names = [layer.name for layer in layers(onnx.load(graph))]
    assert set(names) == parts | {"conv1", "layer2.0.downsample.0", "layer3.0.downsample.0"}
    assert len(names) == len(set(names))
    pictures = sorted((drawn_data / CLASS_NAME / "train" / "good").iterdir())
    found = find_ranges(graph, pictures, detector.embedder.size, "minmax")
    backbone = cut(onnx.load(graph), list(found.limits))
    assert [item.name for item in backbone.graph.input] == [FRAMES]
    assert not [item for item in backbone.graph.initializer if "head" in item.name]
    # An untrained ResNet's blocks add nothing yet, so that some activations are 0 throughout.
    assert 0 < sum(limit > 0 for limit in found.limits.values()) < len(found.limits)
