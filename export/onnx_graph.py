"""Detector -> one self-contained ONNX file (DESIGN section 2)."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from patchline.runtime import contract
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ModelError

OPSET = 18
"""Read by TensorRT 10.3 and later, and the exporter's own: no version converter in between."""

LARGEST_BATCH = 1024
EXTERNAL_DATA_BYTES = (1 << 31) - (1 << 24)
"""Past this size tensors go into a second file: protobuf's limit, less room for the rest."""


@dataclass(frozen=True)
class DynamicInput:
    """An input besides the frames.

    Attributes:
        example: a tensor of its type and shape, whose values do not matter.
        axes: the axes that are dynamic, each with its ``torch.export.Dim``.
    """

    example: Tensor
    axes: dict[int, Any]


def to_onnx(
    detector: nn.Module, size: ModelSize, inputs: Mapping[str, DynamicInput] | None = None
) -> onnx.ModelProto:
    """Trace a module of three outputs with a dynamic batch.

    Args:
        detector: takes uint8 ``[B, H, W, 3]``, gives the contract's outputs; on the CPU.
        size: height and width of the frames in pixels.
        inputs: what it takes after the frames, by name.

    Raises:
        ModelError: the exporter refuses the module.
    """
    # Two frames: a batch of one would be taken for a constant.
    frames = torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    given = {contract.FRAMES: DynamicInput(frames, {0: batch}), **(inputs or {})}
    try:
        with _quiet():
            program = torch.onnx.export(
                detector,
                tuple(item.example for item in given.values()),
                input_names=list(given),
                output_names=list(contract.OUTPUTS),
                dynamic_shapes=tuple(item.axes for item in given.values()),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ModelError(f"the model cannot be exported to ONNX: {error}") from error
    if program is None:
        raise ModelError("the model cannot be exported to ONNX: the exporter gave nothing")
    return _without_traces(program.model_proto)


def save_onnx(
    model: onnx.ModelProto, path: Path, *, external_data_bytes: int = EXTERNAL_DATA_BYTES
) -> None:
    """Write one file; past ``external_data_bytes`` the tensors go to ``NAME.onnx.data``."""
    if _tensor_bytes(model) <= external_data_bytes:
        path.write_bytes(model.SerializeToString())
        return
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        location=contract.external_data_path(path).name,
    )


def _tensor_bytes(model: onnx.ModelProto) -> int:
    # Not ByteSize(), which serialises: past 2 GiB it fails itself.
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )


def set_metadata(model: onnx.ModelProto, entries: dict[str, str]) -> None:
    """Replace the model's ``metadata_props``."""
    onnx.helper.set_model_props(model, entries)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    # The exporter notes the source line behind every node, with the paths of this machine.
    graph = model.graph
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own internals from the user; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
