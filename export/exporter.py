"""Fitted model -> ``NAME.onnx``, ``NAME.json``, ``NAME.safetensors``: verified, all or nothing.

With ``--bank external`` it is the graph of all classes and ``NAME.bank``: see
:mod:`patchline.export.external_files`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from patchline.export.config import FitSettings
from patchline.export.describe import describe, state_of
from patchline.export.external_files import check_same_settings, export_external, graph_path
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, set_metadata
from patchline.export.parity import FRAMES_COMPARED
from patchline.export.precision.converted import Converted
from patchline.export.precision.form import Form
from patchline.export.precision.verify import check_twin, verify_file
from patchline.export.search import choose_search
from patchline.export.state import TrainingState, save_state, state_path
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.contract import (
    METADATA_KEY,
    Manifest,
    OnnxFile,
    external_data_path,
    manifest_path,
    model_digest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, ManifestError
from patchline.runtime.files import staged_files, write_errors
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.progress import Steps


def export_model(
    fitted: FittedModel,
    settings: FitSettings,
    out: Path,
    steps: Steps,
    converted: Converted | None = None,
    state: TrainingState | None = None,
) -> Path:
    """Write, verify and publish one model.

    The files appear in ``out`` together and only after every check; until then, and after any
    failure, older files of that name are untouched.

    Args:
        fitted: the float32 model.
        settings: it was fitted with.
        out: folder of the files.
        steps: shows progress.
        converted: the model at the precision of the settings, unless that is ``fp32``.
        state: what the model was made again from, which is written as it is.

    Returns:
        The path of the ONNX file; with an external bank, of the bank.

    Raises:
        ParityError: the file does not compute what was fitted.
        ConfigurationError: a file of that name belongs to other models; or a pruned search is asked
            for that this bank cannot have, or that misses too much.
        WriteError: a file cannot be written.
    """
    form = converted.form if converted else Form(fitted.detector)
    if form.precision != settings.precision:
        raise ValueError(f"asked for {settings.precision}, given a model in {form.precision}")
    check_target(out, fitted.pictures.class_name, settings)
    if settings.bank == "external":
        return export_external(fitted, settings, out, steps, converted, state)
    name = f"{fitted.pictures.class_name}.onnx"
    choice = choose_search(fitted, form, settings, steps)
    form = replace(form, search=choice.plan)
    with steps.step("Exporting and verifying", 3) as advance, staged_files(out) as stage:
        graph = form.embedded()
        advance(1)
        save_onnx(graph, stage / name)
        sample = fitted.pictures.paths[:: max(1, len(fitted.pictures.paths) // FRAMES_COMPARED)]
        frames = read_frames(sample[:FRAMES_COMPARED], settings.model_size)
        parity = verify_file(stage / name, form, frames)
        if converted:
            check_twin(stage / name, converted, frames)
        advance(2)
        float32 = describe(fitted, settings, None if converted else parity)
        described = choice.noted_in(converted.manifest if converted else float32)
        manifest = _write(graph, stage / name, described.model_copy(update={"parity": parity}))
        kept = float32 if converted else manifest
        save_state(state_of(fitted, kept, "embedded", state), state_path(stage / name))
        # As a user will: digest, manifest against metadata, one frame.
        with open_engine(stage / name, provider="cpu") as engine:
            engine.infer(frames[:1])
        is_one_file = not external_data_path(stage / name).exists()
        advance(3)
    if is_one_file:  # an older, larger model's data would be taken for this one's
        with write_errors(out):
            external_data_path(out / name).unlink(missing_ok=True)
    return out / name


def check_target(out: Path, class_name: str, settings: FitSettings) -> None:
    """Refuse, before the fit, to put a model where it would spoil others.

    Raises:
        ConfigurationError: the graph that is there has another score, k or backbone; or a class
            is called like the graph of other classes.
    """
    if settings.bank == "external":
        check_same_settings(graph_path(out, settings), settings)
        return
    path = manifest_path(out / f"{class_name}.onnx")
    try:
        is_graph = path.exists() and isinstance(load_any_manifest(path), GraphManifest)
    except ManifestError:  # damaged, and about to be replaced
        return
    if is_graph:
        raise ConfigurationError(
            f"{path.with_suffix('.onnx')} is the graph of classes with an external bank, and the "
            f"class {class_name} would replace it. Give another --out, or rename the class"
        )


def leftovers(path: Path) -> list[Path]:
    """Files of an earlier export of the class whose bank lay elsewhere; they are not touched.

    Args:
        path: what :func:`export_model` gave.
    """
    other = path.with_suffix(".onnx" if path.suffix == BANK_SUFFIX else BANK_SUFFIX)
    if other.suffix == ".onnx":
        return [file for file in (other, manifest_path(other)) if _is_of_class(file, path.stem)]
    return [other] if other.exists() else []


def _is_of_class(file: Path, name: str) -> bool:
    try:
        found = load_any_manifest(manifest_path(file))
    except ManifestError:
        return False
    return file.exists() and isinstance(found, Manifest) and found.class_name == name


def _write(graph: onnx.ModelProto, path: Path, manifest: Manifest) -> Manifest:
    """Write the graph with the manifest inside, and the manifest with the file's digest beside."""
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    whole = manifest.model_copy(
        update={"onnx": OnnxFile(file=path.name, sha256=model_digest(path))}
    )
    whole.save(manifest_path(path))
    return whole
