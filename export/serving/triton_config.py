"""``config.pbtxt``: what Triton is told of a model (Triton's model configuration, ModelConfig).

Dims are without the batch. ``image_score`` is ``[B]`` in the graph and ``[B, 1]`` in a request,
since Triton has no output without dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchline.export.serving.text_proto import Message, Word, text_of
from patchline.runtime.contract import (
    ANOMALY_MAP,
    FRAMES,
    IMAGE_SCORE,
    INFLUENCE_MAP,
    Manifest,
    ModelSize,
)

MAX_BATCH = 8
"""Frames of one execution of an ONNX model; those of a plan are in its own profile."""

QUEUE_DELAY_US = 500
"""So long a frame waits for others, in microseconds."""

PREFIX = "patchline."
KIND, CLASS, MODEL_VERSION = f"{PREFIX}kind", f"{PREFIX}class", f"{PREFIX}model_version"

_UINT8, _FP32 = Word("TYPE_UINT8"), Word("TYPE_FP32")


@dataclass(frozen=True)
class Backend:
    """What runs a model.

    Attributes:
        name: Triton's.
        instance: kind of the instance: wherever there is room, or a GPU.
        max_batch: frames of one execution.
        preferred: batch sizes that it is fastest at; empty where all are alike.
    """

    name: str
    instance: str
    max_batch: int = MAX_BATCH
    preferred: tuple[int, ...] = ()


ONNX_RUNTIME = Backend("onnxruntime", "KIND_AUTO")


def plan_backend(batch: tuple[int, int, int]) -> Backend:
    """TensorRT, for a plan of this profile: smallest, most common and largest batch."""
    preferred = tuple(sorted({size for size in batch[1:] if size > 1}))
    return Backend("tensorrt", "KIND_GPU", batch[2], preferred)


@dataclass(frozen=True)
class Step:
    """A model that an ensemble calls: its name, its version, and its tensors by that name."""

    model: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def whole_config(
    name: str, size: ModelSize, backend: Backend, parameters: Mapping[str, str]
) -> str:
    """Of a model from frames to scores."""
    frames = _frames(size)
    message = {
        **_model(name, backend),
        "input": [frames],
        "output": _outputs(size, is_reshaped=True),
        "model_warmup": _warm_up(frames, backend.max_batch),
        "parameters": _parameters(parameters),
    }
    return text_of(message)


def backbone_config(
    name: str, size: ModelSize, shape: Sequence[int], tensor: str, parameters: Mapping[str, str]
) -> str:
    """Of the part from frames to patch embeddings ``tensor`` of ``shape`` h, w, D."""
    frames = _frames(size)
    message = {
        **_model(name, ONNX_RUNTIME),
        "input": [frames],
        "output": [_tensor(tensor, _FP32, shape)],
        "model_warmup": _warm_up(frames, MAX_BATCH),
        "parameters": _parameters(parameters),
    }
    return text_of(message)


def head_config(
    name: str, size: ModelSize, shape: Sequence[int], tensor: str, parameters: Mapping[str, str]
) -> str:
    """Of the part from patch embeddings to scores.

    Two versions are kept: the ensemble names one, and is only told of a new one afterwards.
    """
    embeddings = _tensor(tensor, _FP32, shape)
    message = {
        **_model(name, ONNX_RUNTIME, versions=2),
        "input": [embeddings],
        "output": _outputs(size, is_reshaped=True),
        # Random bits may be NaN here, which no backbone gives.
        "model_warmup": _warm_up(embeddings, MAX_BATCH, kinds=("zero",)),
        "parameters": _parameters(parameters),
    }
    return text_of(message)


def ensemble_config(
    name: str, size: ModelSize, steps: Sequence[Step], parameters: Mapping[str, str]
) -> str:
    """Of a model that calls others, one after the other."""
    message = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": MAX_BATCH,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [_frames(size)],
        "output": _outputs(size, is_reshaped=False),
        "ensemble_scheduling": {"step": [_step(step) for step in steps]},
        "parameters": _parameters(parameters),
    }
    return text_of(message)


def described(manifest: Manifest, kind: str, version: int, onnx_sha256: str) -> dict[str, str]:
    """What a client needs to judge a score, and the whole manifest.

    Args:
        manifest: of the class.
        kind: what the model is among ours.
        version: of the model whose scores the threshold is for.
        onnx_sha256: digest of the exported file that it was made of.
    """
    size = manifest.model_size
    return {
        KIND: kind,
        CLASS: manifest.class_name,
        MODEL_VERSION: str(version),
        f"{PREFIX}threshold": repr(manifest.threshold.value),
        f"{PREFIX}map_threshold": repr(manifest.threshold.map_value),
        f"{PREFIX}score": manifest.score,
        f"{PREFIX}method": manifest.method,
        f"{PREFIX}precision": manifest.precision,
        f"{PREFIX}height": str(size.height),
        f"{PREFIX}width": str(size.width),
        f"{PREFIX}onnx_sha256": onnx_sha256,
        f"{PREFIX}version": manifest.versions.get("patchline", ""),
        f"{PREFIX}manifest": manifest.model_dump_json(by_alias=True),
    }


def is_of(config: str, parameters: Mapping[str, str]) -> bool:
    """Whether a configuration that was written here has these parameters."""
    return all(text_of({"parameters": [one]}) in config for one in _parameters(parameters))


def _model(name: str, backend: Backend, versions: int = 1) -> dict[str, Any]:
    batching: dict[str, Any] = {"max_queue_delay_microseconds": QUEUE_DELAY_US}
    if backend.preferred:
        batching = {"preferred_batch_size": list(backend.preferred), **batching}
    return {
        "name": name,
        "backend": backend.name,
        "max_batch_size": backend.max_batch,
        "version_policy": {"latest": {"num_versions": versions}},
        "dynamic_batching": batching,
        "instance_group": [{"count": 1, "kind": Word(backend.instance)}],
    }


def _tensor(name: str, kind: Word, dims: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "data_type": kind, "dims": list(dims)}


def _frames(size: ModelSize) -> dict[str, Any]:
    return _tensor(FRAMES, _UINT8, (size.height, size.width, 3))


def _outputs(size: ModelSize, *, is_reshaped: bool) -> list[dict[str, Any]]:
    score = _tensor(IMAGE_SCORE, _FP32, (1,))
    if is_reshaped:
        score["reshape"] = {"shape": []}
    maps = [_tensor(name, _FP32, (size.height, size.width)) for name in _MAPS]
    return [score, *maps]


_MAPS = (ANOMALY_MAP, INFLUENCE_MAP)


def _warm_up(
    tensor: dict[str, Any], largest: int, kinds: Sequence[str] = ("zero", "random")
) -> list[Message]:
    return [
        {
            "name": f"{kind}_{batch}",
            "batch_size": batch,
            "inputs": {
                "key": tensor["name"],
                "value": {
                    "data_type": tensor["data_type"],
                    "dims": tensor["dims"],
                    f"{kind}_data": True,
                },
            },
        }
        for batch in sorted({1, largest})
        for kind in kinds
    ]


def _step(step: Step) -> Message:
    return {
        "model_name": step.model,
        "model_version": step.version,
        "input_map": [{"key": name, "value": name} for name in step.inputs],
        "output_map": [{"key": name, "value": name} for name in step.outputs],
    }


def _parameters(values: Mapping[str, str]) -> list[Message]:
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]
