"""A model of three operations that keeps the whole contract: the brighter, the more anomalous."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from patchline.runtime import contract
from patchline.runtime.contract import Manifest, OnnxFile, manifest_path
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
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("Cast", [contract.FRAMES], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], [anomaly_map], axes=[3], keepdims=0),
        helper.make_node("ReduceMax", [anomaly_map], [score], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", [anomaly_map, "half"], [influence_map]),
    ]
    shape = ["batch", SIZE, SIZE]
    frames = helper.make_tensor_value_info(contract.FRAMES, TensorProto.UINT8, [*shape, 3])
    results = [
        helper.make_tensor_value_info(score, TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info(anomaly_map, TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(influence_map, TensorProto.FLOAT, shape),
    ]
    graph = helper.make_graph(nodes, "lamp", [frames], results, [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
