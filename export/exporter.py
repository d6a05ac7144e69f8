"""Fitted model -> ``NAME.onnx``, ``NAME.json``, ``NAME.safetensors``: verified, all or nothing."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import onnx
import torch

from patchline.export.config import FitSettings
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import OPSET, save_onnx, set_metadata, to_onnx
from patchline.export.parity import FRAMES_COMPARED, verify_parity
from patchline.export.state import TrainingState, save_state, state_path
from patchline.runtime.contract import (
    METADATA_KEY,
    Backbone,
    Manifest,
    MemoryBank,
    OnnxFile,
    Parity,
    Preprocessing,
    external_data_path,
    manifest_path,
    model_digest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.files import staged_files, write_errors
from patchline.runtime.preprocess import RESIZE
from patchline.runtime.progress import Steps


def export_model(fitted: FittedModel, settings: FitSettings, out: Path, steps: Steps) -> Path:
    """Write, verify and publish one model.

    The files appear in ``out`` together and only after every check; until then, and after any
    failure, older files of that name are untouched.

    Returns:
        The path of the ONNX file.

    Raises:
        ParityError: the file does not compute what was fitted.
        WriteError: a file cannot be written.
    """
    name = f"{fitted.pictures.class_name}.onnx"
    with steps.step("Exporting and verifying", 3) as advance, staged_files(out) as stage:
        graph = to_onnx(fitted.detector, settings.model_size)
        advance(1)
        save_onnx(graph, stage / name)
        sample = fitted.pictures.paths[:: max(1, len(fitted.pictures.paths) // FRAMES_COMPARED)]
        frames = read_frames(sample[:FRAMES_COMPARED], settings.model_size)
        parity = verify_parity(stage / name, fitted.detector, frames)
        advance(2)
        manifest = _write(graph, stage / name, describe(fitted, settings, parity))
        state = TrainingState(fitted.memory_bank, manifest, fitted.picture_digests)
        save_state(state, state_path(stage / name))
        # As a user will: digest, manifest against metadata, one frame.
        with open_engine(stage / name, provider="cpu") as engine:
            engine.infer(frames[:1])
        is_one_file = not external_data_path(stage / name).exists()
        advance(3)
    if is_one_file:  # an older, larger model's data would be taken for this one's
        with write_errors(out):
            external_data_path(out / name).unlink(missing_ok=True)
    return out / name


def describe(fitted: FittedModel, settings: FitSettings, parity: Parity | None) -> Manifest:
    """The manifest of a fitted model, before it has a file."""
    embedder = fitted.detector.embedder
    rows, dimension = fitted.memory_bank.shape
    return Manifest(
        class_name=fitted.pictures.class_name,
        method=settings.method,
        score=settings.score_name,
        precision="fp32",
        model_size=settings.model_size,
        preprocessing=Preprocessing(
            channel_order="BGR", resize=RESIZE, mean=embedder.mean, std=embedder.std
        ),
        backbone=Backbone(
            name=embedder.name,
            layers=embedder.layers,
            weights_source=embedder.weights.source,
            weights_sha256=embedder.weights.sha256,
        ),
        memory_bank=MemoryBank(
            rows=rows,
            dimension=dimension,
            neighbors=fitted.detector.head.search.k,
            coreset_ratio=settings.coreset_ratio,
            seed=settings.seed,
        ),
        distance_statistics=fitted.statistics,
        threshold=fitted.threshold,
        normal_scores=fitted.normal,
        training_set=fitted.training_set,
        parity=parity,
        onnx=None,
        versions=_versions(),
    )


def _write(graph: onnx.ModelProto, path: Path, manifest: Manifest) -> Manifest:
    """Write the graph with the manifest inside, and the manifest with the file's digest beside."""
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    whole = manifest.model_copy(
        update={"onnx": OnnxFile(file=path.name, sha256=model_digest(path))}
    )
    whole.save(manifest_path(path))
    return whole


def _versions() -> dict[str, str]:
    return {
        "patchline": importlib.metadata.version("patchline"),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "onnx": onnx.__version__,
        "opset": str(OPSET),
    }
