"""A graph of all classes in two: the backbone, and the head with one class's bank inside.

The cut is the tensor of patch embeddings ``[B, h, w, D]``, which everything that becomes of the
pixels goes through; only the number of frames goes round it, and is as well read from the
embeddings. Both parts are the exported graph's own nodes: nothing is traced again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from patchline.runtime.contract import FRAMES, OUTPUTS
from patchline.runtime.errors import ModelError

EMBEDDINGS = "patch_embeddings"
"""float32 ``[B, h, w, D]``: output of the backbone, input of the head."""

LARGEST_BYTES = (1 << 31) - (1 << 24)
"""Of tensors in one file: protobuf's limit, less room for the rest."""

_DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class SplitGraph:
    """Two graphs that do together what one did.

    Attributes:
        backbone: :data:`~patchline.runtime.contract.FRAMES` -> :data:`EMBEDDINGS`.
        head: :data:`EMBEDDINGS` -> the contract's three outputs, with a bank inside.
        shape: of the embeddings without the batch: h, w, D.
    """

    backbone: ModelProto
    head: ModelProto
    shape: tuple[int, int, int]


def serialized(model: ModelProto) -> bytes:
    """The bytes of a graph, the same for the same graph.

    Raises:
        ModelError: they are more than one ONNX file holds.
    """
    size_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size_bytes > LARGEST_BYTES:
        raise ModelError(
            f"the graph is {size_bytes / (1 << 30):.1f} GiB with its bank inside, and one ONNX "
            "file holds 2. Export with a lower --coreset-ratio; Triton also takes a model of any "
            "size that was exported with --bank embedded"
        )
    return bytes(model.SerializeToString(deterministic=True))


def digest_of(model: ModelProto) -> str:
    """First characters of the SHA-256 of a graph's bytes, for a name.

    Raises:
        ModelError: as :func:`serialized`.
    """
    return hashlib.sha256(serialized(model)).hexdigest()[:_DIGEST_CHARACTERS]


def split_graph(
    graph: ModelProto, dimension: int, bank: Mapping[str, npt.NDArray[Any]]
) -> SplitGraph:
    """Cut a graph that takes a bank at its patch embeddings.

    Args:
        graph: as exported with ``--bank external``; not changed.
        dimension: D, of the embeddings.
        bank: the inputs after the frames, by name.

    Raises:
        ModelError: it has no such tensor, or pixels go round it.
    """
    shaped = onnx.shape_inference.infer_shapes(graph)
    cut, shape = _embeddings(shaped, dimension)
    _rename(shaped, cut, EMBEDDINGS)
    backbone = onnx.utils.Extractor(shaped).extract_model([FRAMES], [EMBEDDINGS])
    for node in shaped.graph.node:
        if node.op_type == "Shape" and list(node.input) == [FRAMES]:
            node.input[0] = EMBEDDINGS  # for the number of frames, which comes first in both
    names = [item.name for item in shaped.graph.input if item.name != FRAMES]
    head = onnx.utils.Extractor(shaped).extract_model([EMBEDDINGS, *names], list(OUTPUTS))
    for part in (backbone, head):
        _finish(part, graph)
    return SplitGraph(backbone, with_constants(head, bank), shape)


def with_constants(graph: ModelProto, values: Mapping[str, npt.NDArray[Any]]) -> ModelProto:
    """A copy of a graph with some of its inputs as constants.

    Raises:
        ModelError: it has no such input.
    """
    made = ModelProto()
    made.CopyFrom(graph)
    missing = set(values) - {item.name for item in made.graph.input}
    if missing:
        raise ModelError(f"the graph has no input {', '.join(sorted(missing))}. Export it again")
    kept = [item for item in made.graph.input if item.name not in values]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in values.items()
    )
    # Shapes in between were inferred for a bank of any size.
    del made.graph.value_info[:]
    return made


def _embeddings(model: ModelProto, dimension: int) -> tuple[str, tuple[int, int, int]]:
    """Name and shape of the last tensor [B, h, w, D] that all pixels go through."""
    shapes = {item.name: _shape(item) for item in model.graph.value_info}
    for node in reversed(model.graph.node):
        for name in node.output:
            shape = shapes.get(name)
            if shape is None or shape[-1] != dimension:
                continue
            if not _reached(model.graph.node, FRAMES, without=name) & set(OUTPUTS):
                return name, shape
    raise ModelError(
        f"the graph has no patch embeddings [B, h, w, {dimension}] that all else is computed from, "
        "so that no backbone can be shared. Export it with this Patchline again"
    )


def _shape(item: onnx.ValueInfoProto) -> tuple[int, int, int] | None:
    """h, w and D of a float32 tensor [B, h, w, D]; ``None`` for any other."""
    tensor = item.type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim]
    is_one = tensor.elem_type == TensorProto.FLOAT and len(dims) == 4 and min(dims[1:]) > 0
    return (dims[1], dims[2], dims[3]) if is_one else None


def _reached(nodes: Iterable[NodeProto], start: str, without: str) -> set[str]:
    """Tensors that depend on one other than by its shape, and other than through a third."""
    reached = {start}
    for node in nodes:  # in the order of computation
        if node.op_type != "Shape" and reached & set(node.input):
            reached |= set(node.output) - {without}
    return reached


def _rename(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for item in model.graph.value_info:
        if item.name == old:
            item.name = new
            item.type.tensor_type.shape.dim[0].dim_param = "batch"


def _finish(part: ModelProto, whole: ModelProto) -> None:
    """What the extractor leaves as its own: the version that the whole was written in."""
    part.ir_version = whole.ir_version
    part.producer_name, part.producer_version = whole.producer_name, whole.producer_version
    del part.metadata_props[:]
    del part.graph.value_info[:]
    part.graph.name = whole.graph.name
