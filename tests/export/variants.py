"""Published models of every kind that plans are built from, at the size of a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import torch

from patchline.export.backbone import PatchEmbedder
from patchline.export.describe import describe
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.external_bank import ExternalDetector, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, set_metadata, to_onnx
from patchline.runtime.contract import (
    METADATA_KEY,
    Manifest,
    OnnxFile,
    manifest_path,
    model_digest,
)
from patchline.runtime.graph import GraphManifest, graph_of

from .drawn import settings_with

BANK_ROWS = 301
"""Just more than nine groups of 32, the last one to be filled up."""


def variant_of(fitted: FittedModel, embedder: PatchEmbedder, score: str) -> FittedModel:
    """The fit with another backbone and score, and a bank that is drawn."""
    size = embedder.size
    bank = torch.randn(BANK_ROWS, embedder.dimension, generator=torch.Generator().manual_seed(0))
    head = AnomalyHead(bank, fitted.statistics, embedder.grid, size, score=score, neighbors=9)
    return replace(fitted, detector=Detector(embedder, head), memory_bank=bank, row_pictures=None)


def write_model(fitted: FittedModel, score: str, folder: Path) -> Path:
    """A model file with its bank inside, its manifest beside it."""
    graph = to_onnx(fitted.detector, fitted.detector.embedder.size)
    path = folder / f"{fitted.detector.embedder.name}-{score}.onnx"
    return publish(graph, path, describe(fitted, settings_with(score=score), None))


def write_graph(fitted: FittedModel, score: str, folder: Path) -> Path:
    """A model file that takes its bank as inputs, its manifest beside it."""
    detector = fitted.detector
    graph = to_onnx(ExternalDetector(detector), detector.embedder.size, graph_inputs(detector.head))
    path = folder / f"{detector.embedder.name}-{score}-graph.onnx"
    return publish(graph, path, graph_of(describe(fitted, settings_with(score=score), None)))


def publish(graph: onnx.ModelProto, path: Path, manifest: Manifest | GraphManifest) -> Path:
    """Write a graph and its manifest, each with what it holds of the other."""
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    file = OnnxFile(file=path.name, sha256=model_digest(path))
    manifest.model_copy(update={"onnx": file}).save(manifest_path(path))
    return path
