"""A graph small enough to be worked out by hand, with all that an exported one has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from patchline.calibration.ranges import Ranges
from patchline.runtime.contract import FRAMES, IMAGE_SCORE, METADATA_KEY, ModelSize

SIZE = ModelSize(height=12, width=16)
CHANNELS = 4
Array = npt.NDArray[Any]

_rng = np.random.default_rng(11)
WEIGHTS: dict[str, Array] = {
    "scale": _rng.uniform(0.01, 0.02, (1, 3, 1, 1)).astype(np.float32),
    "shift": _rng.uniform(-2, -1, (1, 3, 1, 1)).astype(np.float32),
    "weight_a": _rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
    "bias_a": _rng.normal(size=CHANNELS).astype(np.float32),
    "weight_b": _rng.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32),
    "bias_b": _rng.normal(size=CHANNELS).astype(np.float32),
    "half": np.array(0.5, np.float32),
    "rows": np.array([-1, CHANNELS], np.int64),
    "bank": _rng.normal(size=(CHANNELS, 9)).astype(np.float32),
    "per_picture": np.array([-1, SIZE.height * SIZE.width * 9], np.int64),
    "axis": np.array([1], np.int64),
}
LAYERS = ["conv_a", "conv_b", "residual"]


def small_graph(**weights: Array) -> onnx.ModelProto:
    """Pixels, two convolutions and a residual, the averaging, a search, and a score."""
    pad: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", [FRAMES], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"], "scaling"),
        helper.make_node("Add", ["scaled", "shift"], ["pixels"], "shifting"),
        helper.make_node("Conv", ["pixels", "weight_a", "bias_a"], ["a"], "conv_a", **pad),
        helper.make_node("Relu", ["a"], ["relu_a"], "relu_a"),
        helper.make_node("Conv", ["relu_a", "weight_b", "bias_b"], ["b"], "conv_b", **pad),
        helper.make_node("Add", ["b", "relu_a"], ["sum"], "residual"),
        helper.make_node("Relu", ["sum"], ["relu_sum"], "relu_sum"),
        helper.make_node("Add", ["relu_sum", "half"], ["offset"], "plus_half"),
        helper.make_node("AveragePool", ["offset"], ["averaged"], "averaging", **pad),
        helper.make_node("Add", ["averaged", "averaged"], ["pooled"], "channel_pool"),
        helper.make_node("Transpose", ["pooled"], ["last"], "last", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "rows"], ["patches"], "flatten"),
        helper.make_node("Gemm", ["patches", "bank"], ["products"], "search"),
        helper.make_node("Reshape", ["products", "per_picture"], ["pictures"], "by_picture"),
        helper.make_node("ReduceMax", ["pictures", "axis"], [IMAGE_SCORE], "score", keepdims=0),
    ]
    shape = ["batch", SIZE.height, SIZE.width, 3]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(FRAMES, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(IMAGE_SCORE, TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(v, name) for name, v in (WEIGHTS | weights).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: "as it was"})
    return model


def frames_of(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIZE.height, SIZE.width, 3), np.uint8)


def convolve(x: Array, weight: Array, bias: Array) -> Array:
    """3x3, padded by 1, in the precision of its arguments."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def activations_of(frames: Array) -> dict[str, Array]:
    """Every activation that is looked at, in float64."""
    w = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    pixels = frames.astype(np.float64).transpose(0, 3, 1, 2) * w["scale"] + w["shift"]
    a = convolve(pixels, w["weight_a"], w["bias_a"])
    relu_a = np.maximum(a, 0)
    b = convolve(relu_a, w["weight_b"], w["bias_b"])
    total = b + relu_a
    return {
        "pixels": pixels,
        "a": a,
        "relu_a": relu_a,
        "b": b,
        "sum": total,
        "relu_sum": np.maximum(total, 0),
    }


def small_ranges(**changes: float) -> Ranges:
    """The largest values over some frames, with some of them changed."""
    found = activations_of(frames_of(8))
    limits = {name: float(np.abs(values).max()) for name, values in found.items()}
    return Ranges(
        method="minmax", percentile=None, images=8, sha256="0" * 64, limits=limits | changes
    )
