"""Fitted model -> ``BACKBONE-SIZE.onnx``, every product's, and ``NAME.bank``: this one's.

The first class writes the graph; later ones keep it as it is, and are verified with it. Each
precision has a graph of its own, ``BACKBONE-SIZE-fp16.onnx``; an INT8 one keeps the ranges that
were found on the pictures of the classes it was exported for, and every class passes the gate with
it.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from pydantic import ValidationError

from patchline.export.config import FitSettings
from patchline.export.describe import describe, state_of
from patchline.export.external_bank import bank_tensors, check_external
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, set_metadata
from patchline.export.onnx_session import threads_of_export
from patchline.export.parity import FRAMES_COMPARED
from patchline.export.precision.converted import Converted, GivenGraph
from patchline.export.precision.form import Form
from patchline.export.precision.verify import verify_file
from patchline.export.state import TrainingState, save_state, state_path
from patchline.runtime.bank import BANK_SUFFIX, Bank, save_bank
from patchline.runtime.contract import (
    METADATA_KEY,
    BankPrecision,
    Manifest,
    OnnxFile,
    Quantization,
    external_data_path,
    manifest_path,
    model_digest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, ModelError
from patchline.runtime.files import staged_files
from patchline.runtime.graph import GraphManifest, differing_fields, graph_of, load_any_manifest
from patchline.runtime.progress import Steps

_QUANTIZATION = "patchline.quantization"
"""Key in ``metadata_props`` of how an INT8 graph's ranges were found."""


def graph_path(out: Path, settings: FitSettings, bank: BankPrecision | None = None) -> Path:
    """Where the graph of these settings lies: ``resnet18-256.onnx``, ``-256x320`` if not square.

    Args:
        out: the folder.
        settings: of the model.
        bank: precision of the bank, where the gate did not allow the backbone's own.
    """
    height, width = settings.image_size
    size = f"{height}" if height == width else f"{height}x{width}"
    backbone = re.sub(r"[^A-Za-z0-9._-]+", "-", settings.backbone)
    precision = "" if settings.precision == "fp32" else f"-{settings.precision}"
    if settings.precision == "fp16" and bank == "fp32":
        precision += "-bank-fp32"
    return out / f"{backbone}-{size}{precision}.onnx"


def given_graph(out: Path, settings: FitSettings, float32: Manifest) -> GivenGraph | None:
    """The INT8 graph that is there already and fits; ``None`` where one is to be made.

    Raises:
        ConfigurationError: the graph that is there computes something else.
        ModelError: it is damaged, or does not say how it was quantised.
    """
    there = graph_path(out, settings)
    wanted = graph_of(float32.model_copy(update={"precision": settings.precision}))
    if settings.precision != "int8" or not _is_there(there, wanted):
        return None
    props = onnx.load(there, load_external_data=False).metadata_props
    found = {item.key: item.value for item in props}.get(_QUANTIZATION)
    try:
        return GivenGraph(there, Quantization.model_validate_json(found or ""))
    except ValidationError as error:
        raise ModelError(
            f"{there} does not say how it was quantised. Remove it to have it written again; the "
            "banks beside it stay good"
        ) from error


def export_external(
    fitted: FittedModel,
    settings: FitSettings,
    out: Path,
    steps: Steps,
    converted: Converted | None = None,
    state: TrainingState | None = None,
) -> Path:
    """Write, verify and publish a bank, and the graph where there is none yet.

    The files appear in ``out`` together and only after every check. ``converted`` and ``state``
    are as for :func:`patchline.export.exporter.export_model`.

    Returns:
        The path of the bank.

    Raises:
        ConfigurationError: the bank has too few rows, or the graph that is there computes
            something else.
        ModelError: the graph that is there is damaged.
        ParityError: the graph does not compute with this bank what was fitted.
        WriteError: a file cannot be written.
    """
    check_external(len(fitted.memory_bank), settings.neighbors, settings.score_name)
    form = converted.form if converted else Form(fitted.detector)
    float32 = describe(fitted, settings, None)
    manifest = converted.manifest if converted else float32
    name, there = fitted.pictures.class_name, graph_path(out, settings, form.bank)
    with steps.step("Exporting and verifying", 3) as advance, staged_files(out) as stage:
        is_there = _is_there(there, graph_of(manifest))
        graph = there if is_there else stage / there.name
        if not is_there:
            _write_graph(converted.graph if converted else form.external(), graph, manifest)
        advance(1)
        sample = fitted.pictures.paths[:: max(1, len(fitted.pictures.paths) // FRAMES_COMPARED)]
        frames = read_frames(sample[:FRAMES_COMPARED], settings.model_size)
        tensors = bank_tensors(form.detector.head)
        parity = verify_file(graph, form, frames, tensors)
        advance(2)
        bank = Bank(manifest.model_copy(update={"parity": parity}), tensors)
        path = stage / f"{name}{BANK_SUFFIX}"
        save_bank(bank, path)
        described = float32 if converted else bank.manifest
        save_state(state_of(fitted, described, "external", state), state_path(path))
        threads = threads_of_export()
        # As a user will: digests, manifests, one frame.
        with open_engine(graph, provider="cpu", threads=threads, bank=path) as engine:
            engine.infer(frames[:1])
        advance(3)
    return out / path.name


def check_same_settings(graph: Path, settings: FitSettings) -> None:
    """Refuse settings that the graph which is there does not have.

    Its backbone's weights are not known before the fit, and are compared after it.

    Raises:
        ConfigurationError: it has another score, k or backbone, or is a whole model.
    """
    found = _manifest_of(graph)
    if found is None:
        return
    wanted = found.model_copy(
        update={
            "score": settings.score_name,
            "neighbors": settings.neighbors,
            "model_size": settings.model_size,
            "backbone": found.backbone.model_copy(update={"name": settings.backbone}),
        }
    )
    _check_same(graph, found, wanted)


def _is_there(graph: Path, wanted: GraphManifest) -> bool:
    """Whether the graph is in its place; where it is, it fits and is whole."""
    found = _manifest_of(graph)
    if found is not None:
        _check_same(graph, found, wanted)
    if not graph.exists():
        if external_data_path(graph).exists():
            raise ModelError(
                f"{external_data_path(graph)} is there without {graph.name}. Remove it, or copy "
                "the other file back"
            )
        return False
    if found is None or found.onnx is None or found.onnx.sha256 != model_digest(graph):
        raise ModelError(
            f"{graph} is not the file that {manifest_path(graph).name} was written for. Remove "
            "both to have them written again; the banks beside them stay good"
        )
    return True


def _manifest_of(graph: Path) -> GraphManifest | None:
    path = manifest_path(graph)
    if not path.exists():
        return None
    found = load_any_manifest(path)
    if not isinstance(found, GraphManifest):
        raise ConfigurationError(
            f"{path} belongs to the class {found.class_name}, and is where the graph of all "
            "classes would lie. Give another --out"
        )
    return found


def _check_same(graph: Path, found: GraphManifest, wanted: GraphManifest) -> None:
    differences = differing_fields(found, wanted)
    if differences:
        raise ConfigurationError(
            f"{graph} serves other classes and computes something else. {'; '.join(differences)}. "
            "Give another --out"
        )


def _write_graph(graph: onnx.ModelProto, path: Path, manifest: Manifest) -> None:
    """Write the graph with its manifest inside, and the manifest with the digest beside it."""
    described = graph_of(manifest)
    entries = {METADATA_KEY: described.to_json()}
    quantization = manifest.conversion.quantization if manifest.conversion else None
    if quantization is not None:
        entries[_QUANTIZATION] = quantization.model_dump_json()
    set_metadata(graph, entries)
    save_onnx(graph, path)
    file = OnnxFile(file=path.name, sha256=model_digest(path))
    described.model_copy(update={"onnx": file}).save(manifest_path(path))
