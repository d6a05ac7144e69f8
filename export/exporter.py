"""Fitted model -> ``NAME.onnx``, ``NAME.json``, ``NAME.safetensors``: verified, all or nothing.

With ``--bank external`` it is the graph of all classes and ``NAME.bank``: see
:mod:`patchline.export.external_files`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx

from patchline.export.config import FitSettings
from patchline.export.describe import describe, state_of
from patchline.export.external_files import check_same_settings, export_external, graph_path
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, set_metadata
from patchline.export.onnx_session import threads_of_export
from patchline.export.parity import FRAMES_COMPARED
from patchline.export.precision.converted import Converted
from patchline.export.precision.form import Form
from patchline.export.precision.verify import check_twin, verify_file
from patchline.export.search import SearchChoice, choose_search
from patchline.export.state import TrainingState, save_state, state_path
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.contract import (
    METADATA_KEY,
    Manifest,
    ModelSize,
    OnnxFile,
    external_data_path,
    manifest_path,
    model_digest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, ManifestError, ParityError
from patchline.runtime.files import staged_files, write_errors
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.preprocess import Frame
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
    choice = choose_search(fitted, form, settings, steps)
    export = partial(_export_embedded, fitted, form, settings, out, steps, converted, state)
    try:
        return export(choice)
    except ParityError as error:
        if choice.plan is None or settings.search != "auto":
            raise
        # Two runtimes round differently, and now and then that decides which row is a candidate.
        return export(SearchChoice(None, (f"the exported file failed its check: {error}",)))


def _export_embedded(
    fitted: FittedModel,
    form: Form,
    settings: FitSettings,
    out: Path,
    steps: Steps,
    converted: Converted | None,
    state: TrainingState | None,
    choice: SearchChoice,
) -> Path:
    """Write, verify and publish a model that holds its bank and searches it as chosen."""
    name, form = f"{fitted.pictures.class_name}.onnx", replace(form, search=choice.plan)
    with steps.step("Exporting and verifying", 3) as advance, staged_files(out) as stage:
        graph = form.embedded()
        advance(1)
        save_onnx(graph, stage / name)
        frames = sample_frames(fitted.pictures.paths, settings.model_size)
        parity = verify_file(stage / name, form, frames)
        if converted:
            check_twin(stage / name, converted, frames)
        advance(2)
        float32 = describe(fitted, settings, None if converted else parity)
        described = choice.noted_in(converted.manifest if converted else float32)
        manifest = write_model(graph, stage / name, described.model_copy(update={"parity": parity}))
        kept = float32 if converted else manifest
        save_state(state_of(fitted, kept, "embedded", state), state_path(stage / name))
        try_model(stage / name, frames[:1])
        is_one_file = not external_data_path(stage / name).exists()
        advance(3)
    if is_one_file:
        remove_older_data(out / name)
    return out / name


def sample_frames(paths: tuple[Path, ...], size: ModelSize) -> Frame:
    """Frames uint8 ``[B, H, W, 3]`` of a few pictures, spread over all, that a file is verified on.

    Raises:
        ImageReadError: one cannot be read.
    """
    sample = paths[:: max(1, len(paths) // FRAMES_COMPARED)]
    return read_frames(sample[:FRAMES_COMPARED], size)


def write_model(graph: onnx.ModelProto, path: Path, manifest: Manifest) -> Manifest:
    """Write the graph with the manifest inside, and the manifest with the file's digest beside.

    Returns:
        The manifest beside the file.
    """
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    whole = manifest.model_copy(
        update={"onnx": OnnxFile(file=path.name, sha256=model_digest(path))}
    )
    whole.save(manifest_path(path))
    return whole


def try_model(path: Path, frame: Frame) -> None:
    """Open a model as a user will: digest, manifest against metadata, one frame.

    Raises:
        ModelError: it cannot be opened.
        EngineError: it cannot be run.
    """
    with open_engine(path, provider="cpu", threads=threads_of_export()) as engine:
        engine.infer(frame)


def remove_older_data(path: Path) -> None:
    """Remove what an older, larger model of that path left: it would be taken for this one's.

    Raises:
        WriteError: it cannot be removed.
    """
    with write_errors(path.parent):
        external_data_path(path).unlink(missing_ok=True)


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
