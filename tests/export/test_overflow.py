"""The node that passes the range of half precision is named, where the outputs hide it too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from patchline.export.precision.overflow import first_overflow
from patchline.runtime.errors import ModelError

ONES = {"x": np.ones((2, 3), np.float32)}


def write_chain(path: Path, factors: list[float], kind: np.dtype) -> Path:
    """x -> cast -> times each factor -> clip to 1 -> float32 y; the last two hide an overflow."""
    to = helper.np_dtype_to_tensor_dtype(kind)
    nodes = [helper.make_node("Cast", ["x"], ["t0"], name="in", to=to)]
    constants = [numpy_helper.from_array(np.array(1, kind), "one")]
    for i, factor in enumerate(factors):
        constants.append(numpy_helper.from_array(np.array(factor, kind), f"c{i}"))
        nodes.append(helper.make_node("Mul", [f"t{i}", f"c{i}"], [f"t{i + 1}"], name=f"times_{i}"))
    nodes.append(helper.make_node("Min", [f"t{len(factors)}", "one"], ["small"], name="limit"))
    nodes.append(helper.make_node("Cast", ["small"], ["y"], name="out", to=TensorProto.FLOAT))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, str(path))
    return path


HALF, FLOAT = np.dtype(np.float16), np.dtype(np.float32)


def test_the_first_node_past_the_range_is_named(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [2.0, 300.0, 300.0, 300.0], HALF)
    assert first_overflow(path, ONES) == "times_2 (Mul)"


def test_the_largest_half_is_no_overflow(tmp_path: Path) -> None:
    assert first_overflow(write_chain(tmp_path / "a.onnx", [65504.0, 1.0], HALF), ONES) is None
    past = write_chain(tmp_path / "b.onnx", [65504.0, 1.001], HALF)
    assert first_overflow(past, ONES) == "times_1 (Mul)"


def test_the_same_in_float32_is_sound(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [2.0, 300.0, 300.0, 300.0], FLOAT)
    assert first_overflow(path, ONES) is None


def test_one_value_among_many_is_enough(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [300.0, 200.0], HALF)
    x = np.full((2, 3), 0.1, np.float32)
    assert first_overflow(path, {"x": x}) is None
    x[1, 2] = -1.2
    assert first_overflow(path, {"x": x}) == "times_1 (Mul)"


def test_nodes_without_a_name_are_called_by_their_output(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [300.0, 300.0], HALF)
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.ClearField("name")
    onnx.save_model(model, str(path))
    assert first_overflow(path, ONES) == "t2 (Mul)"


def write_layers(path: Path, biases: tuple[float, float]) -> Path:
    """x, conv1, ReLU, conv2, ReLU, plus itself: each weight 1, named as in a half backbone."""
    nodes, constants, before = [], [], "x"
    for i, bias in enumerate(biases, start=1):
        weight = f"embedder.network.network.layer1.conv{i}.weight"
        constants += [
            numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float16), weight),
            numpy_helper.from_array(np.array([bias], np.float16), f"b{i}"),
        ]
        nodes += [
            helper.make_node("Conv", [before, weight, f"b{i}"], [f"c{i}"], name=f"node_{i}"),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu_{i}"),
        ]
        before = f"r{i}"
    nodes.append(helper.make_node("Add", ["r2", "r2"], ["y"], name="twice"))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 1, 1, 1])
        for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "layers", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, str(path))
    return path


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ((1.0, 1.0), None),
        ((60000.0, 60000.0), "node_2 (Conv, layer1.conv2)"),
        ((1.0, 60000.0), "twice (Add after layer1.conv2)"),
    ],
)
def test_the_layer_is_named_because_nodes_are_numbered_anew(
    tmp_path: Path, biases: tuple[float, float], expected: str | None
) -> None:
    path = write_layers(tmp_path / "layers.onnx", biases)
    assert first_overflow(path, {"x": np.ones((1, 1, 1, 1), np.float16)}) == expected


def test_the_file_is_left_alone(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [2.0], HALF)
    before = path.read_bytes()
    first_overflow(path, ONES)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_wrong_inputs_are_an_error_of_ours(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx", [2.0], HALF)
    with pytest.raises(ModelError, match=r"cannot run chain\.onnx node by node"):
        first_overflow(path, {"x": np.ones((2, 4), np.float32)})
