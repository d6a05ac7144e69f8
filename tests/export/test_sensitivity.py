"""Which layer costs what: the figures, the order, the table and the chart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from patchline.export.external_bank import ExternalDetector, bank_tensors, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.int8 import quantize_backbone
from patchline.export.precision.layers import cut, layers
from patchline.export.precision.sensitivity import (
    LIMIT_DB,
    LayerSensitivity,
    failing_layers,
    sensitivity,
    signal_to_noise_db,
)
from patchline.export.precision.sensitivity_report import save_chart, sensitivity_table
from patchline.runtime.contract import FRAMES
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.engine.session_options import session_options
from patchline.runtime.errors import ConfigurationError, DataError, ModelError, WriteError
from patchline.runtime.preprocess import Frame

from .drawn import CLASS_NAME
from .made_once import to_onnx_once
from .quantizable import LAYERS, WEIGHTS, frames_of, small_graph, small_ranges

CASES = [{FRAMES: frames_of(1, seed)} for seed in range(4)]
ROWS = [
    LayerSensitivity("node_bad", "Conv", LIMIT_DB - 10, 0.5),
    LayerSensitivity("node_middling", "Add", LIMIT_DB + 10, -0.0123),
    LayerSensitivity("node_silent", "Conv", math.inf, 0.0),
]


def patches_and_scores(model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Of all cases, by a session for each of the two."""
    ort, found = import_onnxruntime(), []
    for part in (cut(model, ["patches"]), model):
        session = ort.InferenceSession(
            part.SerializeToString(), session_options(ort), providers=["CPUExecutionProvider"]
        )
        found.append(np.concatenate([session.run(None, case)[0] for case in CASES]))
    return found[0].astype(np.float64), found[1].astype(np.float64)


def test_the_figures_are_those_of_one_layer_alone() -> None:
    ranges = small_ranges()
    patches, scores = patches_and_scores(small_graph())
    seen: list[int] = []
    rows = sensitivity(small_graph(), ranges, CASES, advance=seen.append)
    assert {(row.name, row.operator) for row in rows} == {
        ("conv_a", "Conv"),
        ("conv_b", "Conv"),
        ("residual", "Add"),
    }
    for row in rows:
        others = [name for name in LAYERS if name != row.name]
        got, shifted = patches_and_scores(quantize_backbone(small_graph(), ranges, others))
        noise = sum(float(value) ** 2 for value in (got - patches).ravel())
        signal = sum(float(value) ** 2 for value in patches.ravel())
        assert row.snr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
        assert row.score_shift == pytest.approx(
            float(np.median(shifted - scores) / np.median(scores)), abs=1e-6
        )
    assert [row.snr_db for row in rows] == sorted(row.snr_db for row in rows)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("tensor", "layer"), [("relu_a", "conv_a"), ("b", "conv_b"), ("relu_sum", "residual")]
)
def test_a_layer_made_bad_comes_first_and_fails(tensor: str, layer: str) -> None:
    good = small_ranges()
    bad = small_ranges(**{tensor: 0.2 * good.limits[tensor]})
    assert failing_layers(sensitivity(small_graph(), good, CASES)) == ()
    rows = sensitivity(small_graph(), bad, CASES)
    # Who reads the tensor clips it as well.
    assert layer in failing_layers(rows)
    least = min(row.snr_db for row in rows)
    assert next(row for row in rows if row.name == layer).snr_db <= least + 6
    mended = quantize_backbone(small_graph(), bad, failing_layers(rows))
    patches = patches_and_scores(small_graph())[0]
    assert signal_to_noise_db(patches, patches_and_scores(mended)[0]) > LIMIT_DB


def test_bad_weights_are_the_layers_own() -> None:
    weight = WEIGHTS["weight_b"].copy()
    weight[:, 0, 0, 0] = 4000.0  # one weight takes all levels of its channel
    ranges = small_ranges(b=1e7, sum=1e7, relu_sum=1e7)
    rows = sensitivity(small_graph(weight_b=weight), ranges, CASES)
    assert rows[0].name != "conv_a"
    assert rows[-1].name == "conv_a"


def test_signal_to_noise_is_in_decibels() -> None:
    signal = np.array([[3.0, 4.0]])
    assert signal_to_noise_db(signal, 1.1 * signal) == pytest.approx(20)
    assert signal_to_noise_db(signal, 2 * signal) == pytest.approx(0)
    assert signal_to_noise_db(signal, signal) == math.inf
    assert signal_to_noise_db(np.zeros(2), np.ones(2)) == -math.inf


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one good picture"):
        sensitivity(small_graph(), small_ranges(), [])
    with pytest.raises(DataError, match="scores of the sensitivity pass are 0"):
        sensitivity(small_graph(bank=0 * WEIGHTS["bank"]), small_ranges(), CASES)
    with pytest.raises(ModelError, match="quantised already"):
        sensitivity(quantize_backbone(small_graph(), small_ranges()), small_ranges(), CASES)


def test_an_external_graph_is_judged_with_its_bank(
    fitted: FittedModel, drawn_data: Path, seven_frames: Frame
) -> None:
    detector, size = fitted.detector, fitted.detector.embedder.size
    model = to_onnx_once(ExternalDetector(detector), size, graph_inputs(detector.head))
    ranges = find_ranges(
        model, sorted((drawn_data / CLASS_NAME / "train" / "good").iterdir()), size
    )
    bank = bank_tensors(detector.head)
    cases = [{FRAMES: seven_frames[i : i + 1], **bank} for i in (3, 4)]
    rows = sensitivity(model, ranges, cases)
    assert {row.name for row in rows} == {layer.name for layer in layers(model)}
    assert all(row.snr_db > 10 for row in rows)


def printed(rows: list[LayerSensitivity]) -> str:
    console = Console(width=100, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        console.print(sensitivity_table(rows))
    return captured.get()


def test_the_table_says_what_fails() -> None:
    lines = printed(ROWS).splitlines()
    assert f"limit {LIMIT_DB:g} dB" in lines[0]
    at = {
        name: next(line for line in lines if name in line)
        for name in ("node_bad", "node_middling", "node_silent")
    }
    assert f"{LIMIT_DB - 10:.1f}" in at["node_bad"]
    assert f"below {LIMIT_DB:g} dB" in at["node_bad"]
    assert "+50.00 %" in at["node_bad"]
    assert "below" not in at["node_middling"]
    assert "-1.23 %" in at["node_middling"]
    assert "unchanged" in at["node_silent"]
    assert lines.index(at["node_bad"]) < lines.index(at["node_middling"])


def test_the_chart_names_every_layer_and_is_the_same_again(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save_chart(ROWS, tmp_path / name)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    for row in ROWS:
        assert f">{row.name}<" in text
    assert f">{LIMIT_DB - 10:.1f}<" in text
    assert ">unchanged<" in text
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")


def test_the_chart_is_drawn_as_pixels_too(tmp_path: Path) -> None:
    save_chart(ROWS[2:], tmp_path / "chart.PNG")
    assert (tmp_path / "chart.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_chart_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'\.pdf', expected one of \.svg, \.png"):
        save_chart(ROWS, tmp_path / "chart.pdf")
    with pytest.raises(ConfigurationError, match="no layer to draw"):
        save_chart([], tmp_path / "chart.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        save_chart(ROWS, tmp_path / "file" / "chart.svg")
