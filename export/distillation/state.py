"""The state of a distilled model: bottleneck and student with their manifest, in safetensors.

The teacher is not in it: the manifest holds the digest of its weights. No pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from patchline.export.config_train import DISTILLATION
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.state import KIND
from patchline.export.weights import digest_of_tensors
from patchline.runtime.contract import Manifest, parse_manifest
from patchline.runtime.errors import ModelError, WeightsError
from patchline.runtime.same_bytes import with_sorted_metadata

TRAINED = ("bottleneck", "student")
"""The networks that are trained; the names of their tensors begin so."""

_MANIFEST = "manifest"
_PICTURES = "pictures"


@dataclass(frozen=True)
class DistilledState:
    """What a distilled model can be made again from.

    Attributes:
        tensors: of bottleneck and student, as ``student.NAME``.
        manifest: of the model it was exported as.
        pictures: digests of the pictures it was fitted on, those kept out of the training too.
    """

    tensors: Mapping[str, Tensor]
    manifest: Manifest
    pictures: tuple[str, ...] = ()


def trained_tensors(model: ReverseDistillation) -> dict[str, Tensor]:
    """The tensors of bottleneck and student by name, on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(tuple(f"{part}." for part in TRAINED))
    }


def save_distilled_state(state: DistilledState, path: Path) -> None:
    """Write the state; for a whole-or-nothing write, write into a staging folder."""
    metadata = {
        KIND: DISTILLATION,
        _MANIFEST: state.manifest.to_json(),
        _PICTURES: " ".join(state.pictures),
    }
    content = safetensors.torch.save(dict(state.tensors), metadata)
    path.write_bytes(with_sorted_metadata(content))


def load_distilled_state(path: Path) -> DistilledState:
    """Read a state.

    Raises:
        ModelError: the file is missing, damaged, altered or no state of a distilled model.
        ManifestError: its manifest is of a newer version or was edited.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if metadata.get(KIND) != DISTILLATION or _MANIFEST not in metadata:
        raise ModelError(f"{path} is no state of a model of {DISTILLATION}")
    manifest = parse_manifest(metadata[_MANIFEST], str(path))
    described = manifest.distillation
    if described is None or digest_of_tensors(tensors) != described.weights_sha256:
        raise ModelError(
            f"{path} was altered or damaged: its tensors are not those that its manifest "
            "describes. Copy it again"
        )
    return DistilledState(tensors, manifest, tuple(metadata.get(_PICTURES, "").split()))


def restored(state: DistilledState, weights: str | None) -> ReverseDistillation:
    """The trained networks of a state, in evaluation mode.

    Args:
        state: of a distilled model.
        weights: of the teacher, as for :func:`patchline.export.weights.load_weights`.

    Raises:
        WeightsError: the teacher's weights cannot be loaded, or are not those it was trained with.
        ModelError: the tensors do not fit the networks.
    """
    manifest = state.manifest
    if manifest.distillation is None:
        raise ValueError("the state of a distilled model has a distillation")
    model = ReverseDistillation(
        manifest.backbone.name,
        manifest.model_size,
        weights,
        width_per_group=manifest.distillation.width_per_group,
    )
    if model.weights.sha256 != manifest.backbone.weights_sha256:
        raise WeightsError(
            f"{manifest.class_name} was trained with the weights "
            f"{manifest.backbone.weights_source}, and {model.weights.source} holds others. Give "
            "the same file"
        )
    own = {name: tuple(tensor.shape) for name, tensor in trained_tensors(model).items()}
    if own != {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}:
        raise ModelError(
            f"the state of {manifest.class_name} does not fit {manifest.backbone.name}: other "
            "tensors are expected. Fit the class again"
        )
    model.load_state_dict(dict(state.tensors), strict=False)
    return model.eval()
