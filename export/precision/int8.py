"""An INT8 backbone by explicit QuantizeLinear and DequantizeLinear (DESIGN section 5).

The settings are those that TensorRT builds: signed, symmetric, one scale per output channel of a
weight, weights as float32 with a pair behind them, biases in float32. What they give is what
``onnxruntime.quantization`` gives for the same ranges (the tests compare), but for layers that
stay in float32: these read what was not quantised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from patchline.calibration.ranges import Ranges
from patchline.export.precision.layers import layers, load_graph, ranged_as
from patchline.runtime.errors import ConfigurationError, ModelError

LARGEST = 127
"""Of the 255 values used; -128 is left out, so that 0 lies in the middle."""

FIRST, LAST = "first", "last"
"""Words for layers: the first convolution, and the last one."""


def resolve_layers(model: onnx.ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Names of layers in graph order, each once; ``first`` and ``last`` stand for convolutions.

    Raises:
        ConfigurationError: there is no such layer (says which there are).
        ModelError: as for :func:`patchline.export.precision.layers.layers`.
    """
    found = layers(model)
    valid = [layer.name for layer in found]
    convolutions = [layer.name for layer in found if layer.operator == "Conv"]
    words = {FIRST: convolutions[0], LAST: convolutions[-1]}
    wanted = {words.get(name, name) for name in names}
    for name in sorted(wanted.difference(valid)):
        raise ConfigurationError(unknown_layer(name, valid))
    return tuple(name for name in valid if name in wanted)


def unknown_layer(name: str, valid: Sequence[str], listed: Sequence[str] = ()) -> str:
    """A sentence that refuses a name, with the names there are (or those ``listed``)."""
    close = difflib.get_close_matches(name, valid, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return (
        f"there is no layer {name!r} to keep in float.{hint} There are: {FIRST}, {LAST}, "
        f"{', '.join(listed or valid)}"
    )


def quantize_backbone(
    model: onnx.ModelProto | Path, ranges: Ranges, float_layers: Sequence[str] = ()
) -> onnx.ModelProto:
    """Quantise the backbone of a float32 graph; search, head and bank are left as they are.

    Args:
        model: the graph or its file, with its bank embedded or external; it is not changed.
        ranges: found on this graph.
        float_layers: names of layers that stay in float32, such as ``layer1.0.conv1``,
            ``layer1.0.add``, or ``first`` and ``last``.

    Returns:
        A new graph of the same inputs, outputs and metadata.

    Raises:
        ConfigurationError: there is no such layer (says which there are).
        ModelError: the graph is quantised already or no float32 Patchline graph, or the ranges
            are of another one.
    """
    source = load_graph(model)
    kept = resolve_layers(source, float_layers)
    chosen = [layer.node for layer in layers(source) if layer.name not in kept]
    pairs = _Pairs(source, ranges, chosen)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(source)
    del quantized.graph.node[:]
    quantized.graph.node.extend(pairs.nodes())
    quantized.graph.initializer.extend(pairs.initializers.values())
    return quantized


class _Pairs:
    """The nodes of a graph with QuantizeLinear and DequantizeLinear put between them.

    What a chosen node gives is replaced for all its readers, what else it reads for itself and
    the other chosen nodes.
    """

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, chosen: list[NodeProto]) -> None:
        self.initializers: dict[str, TensorProto] = {}
        self._model = model
        self._limits = ranges.limits
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._given = {str(node.output[0]) for node in chosen}
        # Not the bias, which is added to 32-bit sums.
        self._read = {str(name) for node in chosen for name in node.input[:2]}

    def nodes(self) -> Iterator[NodeProto]:
        """All nodes, in an order that can be computed."""
        for item in self._model.graph.input:
            yield from self._activation(item.name)
        done: set[str] = set()
        for node in self._model.graph.node:
            is_chosen = not self._given.isdisjoint(node.output)
            if is_chosen and node.op_type == "Conv" and node.input[1] not in done:
                done.add(node.input[1])
                yield from self._weight(node.input[1])
            yield self._rewired(node, is_chosen)
            for name in node.output:
                yield from self._activation(name)

    def _rewired(self, node: NodeProto, is_chosen: bool) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        for at, name in enumerate(node.input):
            if name in self._given or (is_chosen and at < 2):
                copy.input[at] = f"{name}_dequantized"
        return copy

    def _activation(self, name: str) -> Iterator[NodeProto]:
        if name not in self._given and name not in self._read:
            return
        limit = self._limit(name)
        yield from self._pair(name, np.array(_scale(limit), np.float32))

    def _weight(self, name: str) -> Iterator[NodeProto]:
        weights = numpy_helper.to_array(self._weights[name])
        limits = np.abs(weights).reshape(len(weights), -1).max(1)
        scales = np.array([_scale(float(limit)) for limit in limits], np.float32)
        yield from self._pair(name, scales, axis=0)

    def _pair(self, name: str, scales: npt.NDArray[np.float32], **axis: Any) -> Iterator[NodeProto]:
        scale, zero, quantized = f"{name}_scale", f"{name}_zero_point", f"{name}_quantized"
        for made, values in ((scale, scales), (zero, np.zeros(scales.shape, np.int8))):
            self.initializers[made] = numpy_helper.from_array(values, made)
        for operator, source, target in (
            ("QuantizeLinear", name, quantized),
            ("DequantizeLinear", quantized, f"{name}_dequantized"),
        ):
            yield helper.make_node(
                operator, [source, scale, zero], [target], f"{name}_{operator}", **axis
            )

    def _limit(self, name: str) -> float:
        ranged = ranged_as(self._model, name) if name in self._given else name
        if ranged not in self._limits:
            raise ModelError(
                f"there is no range for {ranged}: the ranges were found on another graph. Find "
                "them on the graph that is quantised"
            )
        return self._limits[ranged]


def _scale(limit: float) -> float:
    # What never differed from 0 gives no scale; any that is no 0 itself keeps it.
    return (limit if limit > 0 else 1.0) / LARGEST
