"""Where QuantizeLinear stands, by what scale, and that the rest is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorData,
    TensorsData,
)

from patchline.export.backbone import PatchEmbedder
from patchline.export.external_bank import ExternalDetector, bank_tensors, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import to_onnx
from patchline.export.onnx_session import session_options as options_of_export
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.int8 import quantize_backbone, resolve_layers
from patchline.export.precision.layers import layers
from patchline.runtime.contract import FRAMES, IMAGE_SCORE, ModelSize
from patchline.runtime.engine.session_options import session_options
from patchline.runtime.errors import ConfigurationError, ModelError
from patchline.runtime.preprocess import Frame

from .drawn import CLASS_NAME
from .quantizable import (
    LAYERS,
    WEIGHTS,
    convolve,
    frames_of,
    small_graph,
    small_ranges,
)
from .variants import variant_of

READ_OR_GIVEN = {"pixels", "a", "relu_a", "b", "sum"}
"""By the layers of the small graph; what ReLU makes of the last one is the averaging's."""


def run(model: onnx.ModelProto, frames: np.ndarray, **bank: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, {FRAMES: frames} | bank)
    return found


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def quantized_tensors(model: onnx.ModelProto) -> set[str]:
    return {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def readers(model: onnx.ModelProto) -> dict[str, list[str]]:
    own = [node for node in model.graph.node if not node.op_type.endswith("quantizeLinear")]
    return {
        node.name: list(node.input) for node in own if not node.op_type.endswith("QuantizeLinear")
    }


def fake_quantized(values: np.ndarray, limit: np.ndarray | float) -> np.ndarray:
    """What INT8 makes of values, in float64 but for the scale."""
    scale = np.float32(np.asarray(limit, np.float32) / np.float32(127)).astype(np.float64)
    return np.clip(np.rint(values / scale), -128, 127) * scale


def test_pairs_stand_at_the_layers_and_nowhere_else() -> None:
    model = quantize_backbone(small_graph(), small_ranges())
    onnx.checker.check_model(model, full_check=True)
    assert quantized_tensors(model) == READ_OR_GIVEN | {"weight_a", "weight_b"}
    found = readers(model)
    assert found["conv_a"] == ["pixels_dequantized", "weight_a_dequantized", "bias_a"]
    assert found["conv_b"] == ["relu_a_dequantized", "weight_b_dequantized", "bias_b"]
    assert found["residual"] == ["b_dequantized", "relu_a_dequantized"]
    before = readers(small_graph())
    for name in found.keys() - {*LAYERS, "relu_a", "relu_sum"}:
        assert found[name] == before[name], name
    assert found["relu_sum"] == ["sum_dequantized"]
    pairs = [node for node in model.graph.node if node.op_type.endswith("QuantizeLinear")]
    both = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(pairs) == len(READ_OR_GIVEN) + 2
    assert [node.input[1:] for node in pairs] == [node.input[1:] for node in both]


def test_scales_of_weights_are_per_output_channel() -> None:
    found = constants(quantize_backbone(small_graph(), small_ranges()))
    for name in ("weight_a", "weight_b"):
        largest = [float(np.abs(channel).max()) for channel in WEIGHTS[name].astype(np.float64)]
        assert found[f"{name}_scale"] == pytest.approx(np.array(largest) / 127, rel=1e-6)
        assert found[f"{name}_scale"].dtype == np.float32
        assert found[f"{name}_zero_point"].dtype == np.int8
        assert not found[f"{name}_zero_point"].any()
        assert (found[name] == WEIGHTS[name]).all()


def test_scales_of_activations_are_their_limits() -> None:
    ranges = small_ranges(a=100.0, sum=200.0, relu_a=3.0, relu_sum=5.0, b=7.0, pixels=2.5)
    found = constants(quantize_backbone(small_graph(), ranges))
    # Where only ReLU reads a tensor, ReLU's range is its own.
    limits = {"a": 3.0, "relu_a": 3.0, "b": 7.0, "sum": 5.0, "pixels": 2.5}
    for name, limit in limits.items():
        assert found[f"{name}_scale"] == pytest.approx(limit / 127, rel=1e-7)
        assert found[f"{name}_scale"].shape == ()
        assert found[f"{name}_zero_point"] == 0


def expected_score(frames: np.ndarray, limits: dict[str, float]) -> np.ndarray:
    """The whole small graph in INT8, by numpy in float64."""
    w = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    for name in ("weight_a", "weight_b"):
        largest = np.abs(WEIGHTS[name]).reshape(len(w[name]), -1).max(1)
        w[name] = fake_quantized(w[name], largest[:, None, None, None])
    pixels = frames.astype(np.float64).transpose(0, 3, 1, 2) * w["scale"] + w["shift"]
    a = convolve(fake_quantized(pixels, limits["pixels"]), w["weight_a"], w["bias_a"])
    relu_a = np.maximum(fake_quantized(a, limits["relu_a"]), 0)
    b = convolve(fake_quantized(relu_a, limits["relu_a"]), w["weight_b"], w["bias_b"])
    total = fake_quantized(b, limits["b"]) + relu_a
    offset = np.maximum(fake_quantized(total, limits["relu_sum"]), 0) + 0.5
    # A window at the border has fewer values, and the average is over those.
    ones, zeros = np.zeros((4, 4, 3, 3)), np.zeros(4)
    ones[range(4), range(4)] = 1
    counts = convolve(np.ones_like(offset), ones, zeros)
    patches = 2 * convolve(offset, ones, zeros) / counts
    return np.einsum("bchw,cm->bhwm", patches, w["bank"]).max((1, 2, 3))


def test_the_score_is_that_of_numpy() -> None:
    frames, ranges = frames_of(5, seed=9), small_ranges()
    model = quantize_backbone(small_graph(), ranges)
    expected = expected_score(frames, ranges.limits)
    assert run(model, frames)[0] == pytest.approx(expected, rel=5e-4)
    # Near enough to tell it from the float32 one.
    gap = np.abs(run(small_graph(), frames)[0] / expected - 1)
    assert gap.max() > 2e-3


def test_every_session_computes_int8_exactly() -> None:
    """Where the processor has VNNI the numbers above would be right without it, too."""
    for make in (session_options, options_of_export):
        options = make(onnxruntime)
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_it_is_what_onnxruntime_makes_of_the_same_ranges() -> None:
    ranges, frames = small_ranges(), frames_of(4, seed=3)
    limits = ranges.limits | {"a": ranges.limits["relu_a"], "sum": ranges.limits["relu_sum"]}
    data = {
        name: TensorData(lowest=np.float32(-limit), highest=np.float32(limit))
        for name, limit in limits.items()
    }
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(small_graph()),
        True,
        False,
        QuantType.QInt8,
        QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, data),
        LAYERS,
        [],
        ["Conv", "Add"],
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    )
    quantizer.quantize_model()
    theirs, ours = quantizer.model.model, quantize_backbone(small_graph(), ranges)
    assert quantized_tensors(ours) == quantized_tensors(theirs)
    found, expected = constants(ours), constants(theirs)
    for name in quantized_tensors(ours):
        assert found[f"{name}_scale"] == pytest.approx(expected[f"{name}_scale"], rel=1e-6), name
    assert run(ours, frames)[0] == pytest.approx(run(theirs, frames)[0], rel=1e-5)


def test_the_rest_of_the_model_is_as_it_was() -> None:
    source = small_graph()
    before = source.SerializeToString()
    model = quantize_backbone(source, small_ranges())
    assert source.SerializeToString() == before
    for field in ("input", "output"):
        assert list(getattr(model.graph, field)) == list(getattr(source.graph, field))
    assert list(model.metadata_props) == list(source.metadata_props)
    assert model.opset_import == source.opset_import
    for name, values in constants(source).items():
        assert (constants(model)[name] == values).all()


def test_a_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_graph().SerializeToString())
    assert quantize_backbone(path, small_ranges()) == quantize_backbone(
        small_graph(), small_ranges()
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["first"], ["conv_a"]),
        (["last", "first", "conv_a"], ["conv_a", "conv_b"]),
        (["residual", "last"], ["conv_b", "residual"]),
    ],
)
def test_words_stand_for_convolutions(names: list[str], expected: list[str]) -> None:
    assert resolve_layers(small_graph(), names) == tuple(expected)


def test_an_unknown_layer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError) as refused:
        quantize_backbone(small_graph(), small_ranges(), ["conv_c"])
    message = str(refused.value)
    assert "'conv_c'" in message
    assert "Did you mean conv_" in message
    assert message.endswith("There are: first, last, conv_a, conv_b, residual")
    with pytest.raises(ConfigurationError, match="'shifting'"):
        resolve_layers(small_graph(), ["shifting"])


def test_a_layer_in_float_reads_what_was_not_quantised() -> None:
    model = quantize_backbone(small_graph(), small_ranges(), ["residual"])
    found = readers(model)
    # conv_b gives what is quantised; relu_a is quantised for conv_b alone.
    assert found["residual"] == ["b_dequantized", "relu_a"]
    assert found["conv_b"][0] == "relu_a_dequantized"
    assert found["relu_sum"] == ["sum"]
    model = quantize_backbone(small_graph(), small_ranges(), ["first"])
    assert readers(model)["conv_a"] == ["pixels", "weight_a", "bias_a"]
    assert quantized_tensors(model) == {"relu_a", "weight_b", "b", "sum"}


def test_all_in_float_is_the_float_model() -> None:
    model = quantize_backbone(small_graph(), small_ranges(), LAYERS)
    assert model == small_graph()


def test_channels_and_activations_of_zeros_stay_zero() -> None:
    weight = WEIGHTS["weight_b"].copy()
    weight[1] = 0
    ranges = small_ranges(b=0.0, pixels=0.0)
    model = quantize_backbone(small_graph(weight_b=weight), ranges)
    found = constants(model)
    assert all((found[name] > 0).all() for name in found if name.endswith("_scale"))
    assert np.isfinite(run(model, frames_of(2))[0]).all()


def test_weights_that_two_layers_share_have_one_pair() -> None:
    model = small_graph(weight_b=np.tile(WEIGHTS["weight_a"][:, :1], (1, 4, 1, 1)))
    for node in model.graph.node:
        if node.name == "conv_b":
            node.input[2] = "bias_a"
    shared = onnx.helper.make_node(
        "Conv", ["relu_a", "weight_b"], ["twin"], "twin", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )
    at = [node.name for node in model.graph.node].index("residual")
    model.graph.node[at].input[1] = "twin"
    model.graph.node.insert(at, shared)
    found = quantize_backbone(model, small_ranges(twin=9.0))
    onnx.checker.check_model(found, full_check=True)
    assert readers(found)["twin"][1] == readers(found)["conv_b"][1] == "weight_b_dequantized"


def test_bad_models_and_ranges_are_refused() -> None:
    model = quantize_backbone(small_graph(), small_ranges())
    with pytest.raises(ModelError, match="quantised already"):
        quantize_backbone(model, small_ranges())
    ranges = small_ranges()
    del ranges.limits["relu_a"]
    with pytest.raises(ModelError, match=r"no range for relu_a.*another graph"):
        quantize_backbone(small_graph(), ranges)


@pytest.fixture(scope="module", params=["embedded", "external"])
def real(
    request: pytest.FixtureRequest, fitted: FittedModel, drawn_data: Path
) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Any]]:
    """A graph as it is exported, quantised, and the bank that it takes."""
    detector, size = fitted.detector, fitted.detector.embedder.size
    bank: dict[str, Any] = {}
    if request.param == "external":
        bank = bank_tensors(detector.head)
        model = to_onnx(ExternalDetector(detector), size, graph_inputs(detector.head))
    else:
        model = to_onnx(detector, size)
    pictures = sorted((drawn_data / CLASS_NAME / "train" / "good").iterdir())
    return model, quantize_backbone(model, find_ranges(model, pictures, size)), bank


Real = tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Any]]


def test_an_exported_model_runs_and_one_frame_counts_as_three(
    real: Real, seven_frames: Frame
) -> None:
    _, model, bank = real
    onnx.checker.check_model(model)
    together = run(model, seven_frames[:3], **bank)
    for i in range(3):
        alone = run(model, seven_frames[i : i + 1], **bank)
        for one, three in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], three[i], rtol=1e-4, atol=1e-5)


def test_an_exported_model_gives_nearly_the_same_maps(real: Real, seven_frames: Frame) -> None:
    source, model, bank = real
    expected, found = (run(item, seven_frames[3:], **bank)[1] for item in (source, model))
    assert np.abs(found - expected).max() < 0.2 * expected.max()
    assert np.abs(found - expected).max() > 0


def test_only_the_backbone_of_an_exported_model_is_quantised(real: Real) -> None:
    source, model, _ = real
    kept = [layer.node.name for layer in layers(source)]
    changed = {name for name, inputs in readers(model).items() if readers(source)[name] != inputs}
    relus = {node.name for node in source.graph.node if node.op_type == "Relu"}
    poolings = {node.name for node in source.graph.node if node.op_type == "MaxPool"}
    assert set(kept) <= changed <= {*kept, *relus, *poolings}
    assert model.graph.output[0].name == IMAGE_SCORE
    assert list(model.graph.input) == list(source.graph.input)


def test_channel_pooling_of_wide_backbones_is_no_layer(fitted: FittedModel) -> None:
    size = ModelSize(height=32, width=32)
    embedder = PatchEmbedder("wide_resnet50_2", size, "random")
    wide = variant_of(fitted, embedder, "distance").detector
    model = to_onnx(wide, size)
    names = [layer.operator for layer in layers(model)]
    # A stem, three stages of 3, 4 and 6 blocks with three convolutions, and a shortcut each.
    assert (names.count("Conv"), names.count("Add")) == (1 + 3 * 13 + 3, 13)
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(adds) > 13
