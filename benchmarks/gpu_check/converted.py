"""The packed models in half precision and INT8, written without the gate of an export.

On a GPU rounding and speed are checked, for which an untrained backbone does; a gate might not let
it out, or not with its bank in half precision.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings
from patchline.export.describe import describe
from patchline.export.external_bank import bank_tensors
from patchline.export.external_files import graph_path
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, set_metadata, to_onnx
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.form import Form
from patchline.export.precision.half import half_detector
from patchline.export.precision.layers import cut, embeddings
from patchline.runtime import contract
from patchline.runtime.bank import BANK_SUFFIX, Bank, save_bank
from patchline.runtime.contract import (
    METADATA_KEY,
    Manifest,
    OnnxFile,
    Precision,
    manifest_path,
    model_digest,
)
from patchline.runtime.graph import GraphManifest, graph_of


def form_of(fitted: FittedModel, precision: Precision) -> Form:
    """A fit at a precision; the ranges of INT8 come from the pictures of the fit.

    Raises:
        ConfigurationError: a bank that cannot be half, or too few pictures.
    """
    detector = fitted.detector
    if precision == "fp16":
        return Form(half_detector(detector, bank="fp16"), "fp16", "fp16")
    if precision == "fp32":
        return Form(detector)
    size = detector.embedder.size
    ranges = find_ranges(to_onnx(detector, size), fitted.pictures.paths, size)
    return Form(detector, "int8", ranges=ranges)


def with_head_of(form: Form, fitted: FittedModel) -> Form:
    """The form with another product's head, on the same backbone."""
    detector = fitted.detector
    return replace(
        form, detector=half_detector(detector, bank=form.bank) if form.bank == "fp16" else detector
    )


def described(fitted: FittedModel, settings: FitSettings, form: Form) -> Manifest:
    """The manifest of a fit at the precision of a form."""
    manifest = describe(fitted, settings, None)
    bank = manifest.required_bank().model_copy(update={"precision": form.bank})
    return manifest.model_copy(update={"precision": form.precision, "memory_bank": bank})


def write_embedded(fitted: FittedModel, settings: FitSettings, form: Form, folder: Path) -> None:
    """Write ``NAME.onnx`` with its bank inside."""
    path = folder / f"{fitted.pictures.class_name}.onnx"
    _publish(form.embedded(), path, described(fitted, settings, form))


def write_external(fitted: FittedModel, settings: FitSettings, form: Form, folder: Path) -> None:
    """Write a graph without a bank, and ``NAME.bank`` beside it."""
    manifest = described(fitted, settings, form)
    _publish(form.external(), graph_path(folder, settings), graph_of(manifest))
    write_bank(fitted, settings, form, folder)


def write_bank(fitted: FittedModel, settings: FitSettings, form: Form, folder: Path) -> None:
    """Write ``NAME.bank``."""
    folder.mkdir(parents=True, exist_ok=True)
    bank = Bank(described(fitted, settings, form), bank_tensors(form.detector.head))
    save_bank(bank, folder / f"{fitted.pictures.class_name}{BANK_SUFFIX}")


def write_backbone(
    fitted: FittedModel, settings: FitSettings, form: Form, whole: Path, path: Path
) -> None:
    """Write the backbone alone, cut out of the whole model and under the same manifest."""
    graph = backbone_of(onnx.load(whole), form.detector.embedder)
    _publish(graph, path, described(fitted, settings, form))


def backbone_of(whole: onnx.ModelProto, embedder: PatchEmbedder) -> onnx.ModelProto:
    """The embedder behind the whole contract: the same inputs and outputs, and no head.

    Returns:
        A graph of ``[B]``, ``[B, H, W]``, ``[B, H, W]``: mean and maximum of all embeddings.
    """
    rows, size = embeddings(whole), embedder.size
    model = cut(whole, [rows])
    values = embedder.grid[0] * embedder.grid[1] * embedder.dimension
    constants = {"frame": [-1, values], "axis": [1], "pixels": [1, size.height, size.width]}
    model.graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [len(given)], given)
        for name, given in constants.items()
    )
    score = helper.make_node("ReduceMean", ["by_frame", "axis"], [contract.IMAGE_SCORE], keepdims=0)
    model.graph.node.extend(
        [
            helper.make_node("Reshape", [rows, "frame"], ["by_frame"]),
            score,
            *_spread("ReduceMean", contract.ANOMALY_MAP),
            *_spread("ReduceMax", contract.INFLUENCE_MAP),
        ]
    )
    pixels: list[str | int | None] = ["batch", size.height, size.width]
    shapes = dict(zip(contract.OUTPUTS, (pixels[:1], pixels, pixels), strict=True))
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    return model


def _spread(operator: str, output: str) -> list[onnx.NodeProto]:
    """One value per frame on all of its pixels."""
    return [
        helper.make_node(operator, ["by_frame", "axis"], [f"{output}_value"]),
        helper.make_node("Unsqueeze", [f"{output}_value", "axis"], [f"{output}_cell"]),
        helper.make_node("Expand", [f"{output}_cell", "pixels"], [output]),
    ]


def _publish(graph: onnx.ModelProto, path: Path, manifest: Manifest | GraphManifest) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    file = OnnxFile(file=path.name, sha256=model_digest(path))
    manifest.model_copy(update={"onnx": file}).save(manifest_path(path))
