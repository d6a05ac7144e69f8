"""What is written about a fitted model: its manifest."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import Protocol

import onnx
import torch

from patchline.export.backbone import Rgb
from patchline.export.config import FitSettings
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import OPSET
from patchline.export.state import Place, TrainingState
from patchline.export.weights import Weights
from patchline.runtime.contract import Backbone, Manifest, MemoryBank, Parity, Preprocessing
from patchline.runtime.preprocess import RESIZE


class Network(Protocol):
    """A backbone that says what it is; with mean and deviation of its input per colour."""

    name: str
    layers: tuple[str, ...]
    weights: Weights
    mean: Rgb
    std: Rgb


def describe(fitted: FittedModel, settings: FitSettings, parity: Parity | None) -> Manifest:
    """The manifest of a fitted model, before it has a file."""
    embedder = fitted.detector.embedder
    preprocessing, backbone = describe_network(embedder)
    rows, dimension = fitted.memory_bank.shape
    return Manifest(
        class_name=fitted.pictures.class_name,
        method=settings.method,
        score=settings.score_name,
        precision="fp32",
        model_size=settings.model_size,
        preprocessing=preprocessing,
        backbone=backbone,
        memory_bank=MemoryBank(
            rows=rows,
            dimension=dimension,
            neighbors=fitted.detector.head.search.k,
            coreset_ratio=settings.coreset_ratio,
            seed=settings.seed,
            coreset=fitted.sharded,
        ),
        distance_statistics=fitted.statistics,
        threshold=fitted.threshold,
        normal_scores=fitted.normal,
        training_set=fitted.training_set,
        parity=parity,
        onnx=None,
        versions=current_versions(),
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


def describe_network(network: Network) -> tuple[Preprocessing, Backbone]:
    """What becomes of a frame first, and the backbone it goes through."""
    preprocessing = Preprocessing(
        channel_order="BGR", resize=RESIZE, mean=network.mean, std=network.std
    )
    backbone = Backbone(
        name=network.name,
        layers=network.layers,
        weights_source=network.weights.source,
        weights_sha256=network.weights.sha256,
    )
    return preprocessing, backbone


def current_versions() -> dict[str, str]:
    """What a model is made with here: package or standard, and its version."""
    return {
        "patchline": importlib.metadata.version("patchline"),
        "torch": torch.__version__,
        "timm": importlib.metadata.version("timm"),
        "onnx": onnx.__version__,
        "opset": str(OPSET),
    }
