"""Which node of a graph passes the range of its type: half precision ends at 65,504 (DESIGN 5)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

from patchline.export.onnx_graph import save_onnx
from patchline.export.onnx_session import session_options
from patchline.export.precision.layers import module_of
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.errors import ModelError


def first_overflow(path: Path, feeds: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """The first node, in the order of the graph, whose output is not finite.

    Ask it whatever the outputs are: ONNX Runtime's CPU computes half precision in float32 and
    rounds only where it must, so that a graph may be sound there and give NaN on a GPU. Here every
    tensor is rounded to its own type.

    Args:
        path: an ONNX file; it is left alone.
        feeds: all its inputs by name. Every tensor in between is held, so give a frame or two.

    Returns:
        Name and operator, with the backbone's layer that it is or comes after where there is one:
        ``node_Conv_346 (Conv, layer1.0.conv1)``, ``node_add_96 (Add after layer1.0.conv2)``. The
        numbers of nodes differ from one export to the next. ``None`` where all is finite.

    Raises:
        ModelError: ONNX Runtime cannot open or run the graph.
    """
    model = onnx.load(str(path))
    nodes = {name: node for node in model.graph.node for name in node.output if name}
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in nodes if name not in known
    )
    with tempfile.TemporaryDirectory() as folder:
        exposed = Path(folder) / path.name
        save_onnx(model, exposed)
        values = _run(exposed, list(nodes), feeds)
    for (name, node), value in zip(nodes.items(), values, strict=True):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"{node.name or name} ({node.op_type}{_layer(node, nodes)})"
    return None


def _layer(node: NodeProto, made_by: Mapping[str, NodeProto]) -> str:
    """``, layer1.0.conv1`` of a convolution, `` after layer1.0.conv1`` of what follows one."""
    behind: NodeProto | None = node
    while behind is not None and behind.op_type != "Conv":
        behind = made_by.get(behind.input[0]) if behind.input else None
    name = module_of(behind) if behind is not None else ""
    return f"{',' if behind is node else ' after'} {name}" if name else ""


def _run(
    path: Path, names: list[str], feeds: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    onnxruntime = import_onnxruntime()
    options = session_options(onnxruntime)
    # As it is written: a fused operator would not have the tensor in the middle.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        found: list[npt.NDArray[Any]] = session.run(names, dict(feeds))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"ONNX Runtime cannot run {path.name} node by node: {error}") from error
    return found
