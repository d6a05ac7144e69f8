"""What is written about a fitted model: its manifest."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

import onnx
import torch

from patchline.export.config import FitSettings
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import OPSET
from patchline.export.state import Place, TrainingState
from patchline.runtime.contract import Backbone, Manifest, MemoryBank, Parity, Preprocessing
from patchline.runtime.preprocess import RESIZE


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


def state_of(
    fitted: FittedModel, manifest: Manifest, place: Place, state: TrainingState | None = None
) -> TrainingState:
    """The state of a fitted model, always in float32.

    Args:
        fitted: the model.
        manifest: of the float32 model.
        place: where the exported model has its bank.
        state: what the model was made again from, which stays as it is.
    """
    if state is not None:
        return replace(state, bank=place)
    return TrainingState(
        fitted.memory_bank, manifest, fitted.picture_digests, place, fitted.row_pictures
    )


def _versions() -> dict[str, str]:
    return {
        "patchline": importlib.metadata.version("patchline"),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "onnx": onnx.__version__,
        "opset": str(OPSET),
    }
