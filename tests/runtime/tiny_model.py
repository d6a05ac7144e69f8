"""A model of three operations that keeps the whole contract: the brighter, the more anomalous.

Once with all it needs inside, and once as a graph whose bank is an input: there the score is the
brightness above the bank's value, and every tensor of the bank has a part in it, so that a bank of
two products shows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from patchline.runtime import contract
from patchline.runtime.bank import Bank, save_bank
from patchline.runtime.contract import Manifest, OnnxFile, manifest_path
from patchline.runtime.graph import (
    BANK_SQUARES,
    BANK_STATISTICS,
    GROUP_ROWS,
    MEMORY_BANK,
    GraphManifest,
    graph_of,
)
from patchline.runtime.preprocess import RESIZE

SIZE = 32
THRESHOLD = 200.0


def make_manifest(**changes: Any) -> Manifest:
    """A valid manifest of the tiny model, without its file."""
    document: dict[str, Any] = {
        "class": "lamp",
        "method": "brightness",
        "score": "brightness",
        "precision": "fp32",
        "model_size": {"height": SIZE, "width": SIZE},
        "preprocessing": {
            "channel_order": "BGR",
            "resize": RESIZE,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
        "backbone": {
            "name": "none",
            "layers": ("mean",),
            "weights_source": "none",
            "weights_sha256": "0" * 64,
        },
        "memory_bank": {
            "rows": 1,
            "dimension": 1,
            "neighbors": 1,
            "coreset_ratio": 1.0,
            "seed": 0,
        },
        "distance_statistics": {"mean": 0.5, "std": 0.25},
        "threshold": {
            "value": THRESHOLD,
            "map_value": THRESHOLD,
            "rule": "95 % quantile of good pictures",
            "false_alarm_rate": 0.05,
        },
        "normal_scores": {
            "scores": (100.0, 120.0),
            "map_maxima": (100.0, 120.0),
            "mean": 110.0,
            "std": 10.0,
        },
        "training_set": {"images": 2, "skipped_unreadable": 0, "sha256": "1" * 64},
        "parity": None,
        "onnx": None,
        "versions": {"patchline": "0.1.0"},
    }
    return Manifest(**(document | changes))


def make_trained_manifest(**changes: Any) -> Manifest:
    """The same of a model that was distilled, and has no memory bank."""
    distillation = {
        "epochs": 3,
        "batch_size": 4,
        "lr": 0.0025,
        "seed": 0,
        "width_per_group": 64,
        "loss": 0.5,
        "grids": ((8, 8), (4, 4), (2, 2)),
        "noise": {"smallest": 0.01, "largest": 0.3, "warmup_epochs": 1, "bank_rows": (40, 10, 3)},
        "weights_sha256": "4" * 64,
    }
    method = {"method": "reverse-distillation", "score": "cosine", "distillation": distillation}
    none = {"memory_bank": None, "distance_statistics": None}
    return make_manifest(**{**method, **none, **changes})


def write_tiny_model(
    folder: Path, inside: Manifest | None = None, beside: Manifest | None = None
) -> Path:
    """Write ``lamp.onnx`` and ``lamp.json``; other manifests than the valid one may be given."""
    inside = inside or make_manifest()
    path = folder / "lamp.onnx"
    path.write_bytes(tiny_model_bytes({contract.METADATA_KEY: inside.to_json()}))
    write_manifest(path, beside or inside)
    return path


def write_manifest(model: Path, manifest: Manifest) -> None:
    """Write the manifest beside a model, with the model's true digest."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    file = OnnxFile(file=model.name, sha256=digest)
    manifest_path(model).write_text(manifest.model_copy(update={"onnx": file}).to_json())


def tiny_model_bytes(
    metadata: dict[str, str], outputs: tuple[str, ...] = contract.OUTPUTS
) -> bytes:
    """uint8 frames -> mean over channels (the map) -> its maximum (the score)."""
    score, anomaly_map, influence_map = outputs
    nodes = [
        helper.make_node("Cast", [contract.FRAMES], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], [anomaly_map], axes=[3], keepdims=0),
        helper.make_node("ReduceMax", [anomaly_map], [score], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", [anomaly_map, "half"], [influence_map]),
    ]
    return _model_bytes(nodes, [], metadata, outputs)


def make_graph_manifest(**changes: Any) -> GraphManifest:
    """What the tiny graph computes, without its file."""
    return graph_of(make_manifest()).model_copy(update=changes)


def write_tiny_graph(folder: Path, name: str = "graph", **changes: Any) -> Path:
    """Write ``graph.onnx``, which holds no bank, and ``graph.json``."""
    manifest, path = make_graph_manifest(**changes), folder / f"{name}.onnx"
    path.write_bytes(tiny_graph_bytes({contract.METADATA_KEY: manifest.to_json()}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = OnnxFile(file=path.name, sha256=digest)
    manifest.model_copy(update={"onnx": file}).save(manifest_path(path))
    return path


def tiny_bank(
    name: str = "lamp", value: float = 0.0, threshold: float = THRESHOLD, rows: int = GROUP_ROWS
) -> Bank:
    """A product whose good parts have the brightness ``value``; ``rows`` with those that fill."""
    memory_bank = np.zeros((rows, 1), np.float32)
    memory_bank[0] = value
    squares = np.full(rows, 1e30, np.float32)
    squares[0] = value**2
    statistics = np.array([0.5, 0.25, 0.0], np.float32)
    limits = make_manifest().threshold.model_copy(
        update={"value": threshold, "map_value": threshold}
    )
    return Bank(
        make_manifest(**{"class": name, "threshold": limits}),
        {MEMORY_BANK: memory_bank, BANK_SQUARES: squares, BANK_STATISTICS: statistics},
    )


def write_tiny_bank(path: Path, value: float = 0.0, threshold: float = THRESHOLD) -> Path:
    """Write the bank of a product that is called as the file."""
    save_bank(tiny_bank(path.stem, value, threshold), path)
    return path


def tiny_graph_bytes(metadata: dict[str, str]) -> bytes:
    """As :func:`tiny_model_bytes`, less what the bank says: its value, twice, and a statistic."""
    score, anomaly_map, influence_map = contract.OUTPUTS
    nodes = [
        helper.make_node("Cast", [contract.FRAMES], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["brightness"], axes=[3], keepdims=0),
        helper.make_node("ReduceMax", [MEMORY_BANK], ["value"], keepdims=0),
        helper.make_node("ReduceMin", [BANK_SQUARES], ["square"], keepdims=0),
        helper.make_node("ReduceMin", [BANK_STATISTICS], ["statistic"], keepdims=0),
        helper.make_node("Sqrt", ["square"], ["root"]),
        helper.make_node("Add", ["value", "root"], ["double"]),
        helper.make_node("Mul", ["double", "half"], ["mean"]),
        helper.make_node("Add", ["mean", "statistic"], ["shift"]),
        helper.make_node("Sub", ["brightness", "shift"], [anomaly_map]),
        helper.make_node("ReduceMax", [anomaly_map], [score], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", [anomaly_map, "half"], [influence_map]),
    ]
    bank = [
        helper.make_tensor_value_info(MEMORY_BANK, TensorProto.FLOAT, ["rows", 1]),
        helper.make_tensor_value_info(BANK_SQUARES, TensorProto.FLOAT, ["rows"]),
        helper.make_tensor_value_info(BANK_STATISTICS, TensorProto.FLOAT, [3]),
    ]
    return _model_bytes(nodes, bank, metadata, contract.OUTPUTS)


def _model_bytes(
    nodes: list[Any], bank: list[Any], metadata: dict[str, str], outputs: tuple[str, ...]
) -> bytes:
    score, anomaly_map, influence_map = outputs
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    shape = ["batch", SIZE, SIZE]
    frames = helper.make_tensor_value_info(contract.FRAMES, TensorProto.UINT8, [*shape, 3])
    results = [
        helper.make_tensor_value_info(score, TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info(anomaly_map, TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(influence_map, TensorProto.FLOAT, shape),
    ]
    graph = helper.make_graph(nodes, "lamp", [frames, *bank], results, [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
