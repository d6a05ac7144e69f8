"""Where the backbone is in an exported graph: the layers that INT8 may take, and a cut of them.

Only the float32 graph that :func:`patchline.export.onnx_graph.to_onnx` makes is read, with its
bank embedded or external.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from patchline.runtime.errors import ModelError

OPERATORS = ("Conv", "Add")
"""What is quantised (DESIGN section 5)."""


@dataclass(frozen=True)
class Layer:
    """A node that can be quantised.

    Attributes:
        name: the backbone's own, such as ``layer1.0.conv1``, and ``layer1.0.add`` for a residual.
            Nodes of the same layer are numbered differently with the bank embedded and external,
            so their names serve only where weights bear no name of the backbone.
        node: in the graph.
    """

    name: str
    node: NodeProto

    @property
    def operator(self) -> str:
        """``Conv`` or ``Add``."""
        return str(self.node.op_type)


def load_graph(model: onnx.ModelProto | Path) -> onnx.ModelProto:
    """The model itself, or the one in a file.

    Raises:
        ModelError: the file is missing or no ONNX file.
    """
    if not isinstance(model, Path):
        return model
    try:
        return onnx.load(model)
    except Exception as error:  # protobuf, the file system and onnx each have their own
        raise ModelError(f"{model} cannot be read as ONNX: {error}") from error


def layers(model: onnx.ModelProto) -> list[Layer]:
    """The Conv and Add nodes that are quantised unless they are left out, in graph order.

    They lie between the first Conv and the averaging over neighbourhoods. An Add of a constant
    is no layer.

    Raises:
        ModelError: the graph is quantised already, is not float32, or has no such part.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ModelError(
            "the graph is quantised already: INT8 is made from the float32 graph. Export that "
            "first, with --precision fp32"
        )
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    behind_conv: set[str] = set()
    found = []
    for node in _ancestors(model, _averaged(model)):
        reads_conv = not behind_conv.isdisjoint(node.input)
        if node.op_type == "Conv" or reads_conv:
            behind_conv.update(node.output)
        if node.op_type == "Conv":
            _check_weights(node, constants)
            found.append(node)
        elif node.op_type == "Add" and reads_conv and constants.keys().isdisjoint(node.input):
            found.append(node)
    if not any(node.op_type == "Conv" for node in found):
        raise ModelError("the graph has no convolution before its averaging: nothing to quantise")
    return _named(found)


def activations(model: onnx.ModelProto) -> list[str]:
    """Tensors whose ranges are needed: all that layers read and give, and what ReLU makes of it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names: dict[str, None] = {}
    for node in (layer.node for layer in layers(model)):
        names.update(dict.fromkeys(name for name in node.input if name not in constants))
        names.update(dict.fromkeys((node.output[0], ranged_as(model, node.output[0]))))
    return list(names)


def ranged_as(model: onnx.ModelProto, tensor: str) -> str:
    """The tensor whose range is the right one for ``tensor``: where only a ReLU reads it, ReLU's.

    What is below 0 is cut off by ReLU anyway, so that half of the levels would be spent on nothing.
    """
    readers = [node for node in model.graph.node if tensor in node.input]
    outputs = {item.name for item in model.graph.output}
    if len(readers) == 1 and readers[0].op_type == "Relu" and tensor not in outputs:
        return str(readers[0].output[0])
    return tensor


def embeddings(model: onnx.ModelProto) -> str:
    """Name of the patch embeddings, float32 ``[B * h * w, D]``: what the search compares.

    Raises:
        ModelError: the graph has no search.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    searches = [node for node in model.graph.node if node.op_type == "Gemm"]
    if not searches:
        raise ModelError(
            "the graph has no neighbour search, so it is no Patchline model: export it again"
        )
    name = searches[0].input[0]
    while name in made_by and made_by[name].op_type == "Cast":
        name = made_by[name].input[0]
    return str(name)


def module_of(conv: NodeProto) -> str:
    """The backbone's module whose weights a convolution has, empty where they bear no such name.

    In half precision the backbone lies one module deeper, and is called the same.
    """
    _, found, path = str(conv.input[1]).rpartition("embedder.network.")
    return path.removeprefix("network.").removesuffix(".weight") if found else ""


def cut(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """What of a graph is needed for some float32 tensors, as a graph with these as outputs.

    Metadata and descriptions are left behind; a bank, embedded or external, that has no part in
    the tensors as well.
    """
    nodes = _ancestors(model, outputs)
    read = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "backbone",
        [item for item in model.graph.input if item.name in read],
        [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def _averaged(model: onnx.ModelProto) -> list[str]:
    """The feature maps that are averaged on their way to the embeddings."""
    nodes = _ancestors(model, [embeddings(model)], stop=lambda node: node.op_type in _STOPS)
    return [str(node.input[0]) for node in nodes if node.op_type == "AveragePool"]


_STOPS = ("AveragePool", "Shape")


def _ancestors(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    stop: Callable[[NodeProto], bool] = lambda node: False,
) -> list[NodeProto]:
    """The nodes that tensors are computed by, in graph order; none behind a node to stop at."""
    wanted, found = set(tensors), []
    for node in reversed(model.graph.node):
        if wanted.isdisjoint(node.output):
            continue
        found.append(node)
        if not stop(node):
            wanted.update(name for name in node.input if name)
    return found[::-1]


def _named(nodes: list[NodeProto]) -> list[Layer]:
    by_output = {node.output[0]: node for node in nodes}
    named: dict[str, NodeProto] = {}
    for node in nodes:
        own = node if node.op_type == "Conv" else by_output.get(node.input[0])
        name = module_of(own) if own is not None and own.op_type == "Conv" else ""
        if name and node.op_type == "Add":
            name = f"{name.rpartition('.')[0]}.add".removeprefix(".")
        named[name if name and name not in named else node.name] = node
    return [Layer(name, node) for name, node in named.items()]


def _check_weights(node: NodeProto, constants: dict[str, int]) -> None:
    if constants.get(node.input[1]) != TensorProto.FLOAT:
        raise ModelError(
            f"the weights of {node.name} are not float32: INT8 is made from the float32 graph. "
            "Export that first, with --precision fp32"
        )
