"""The training side's own state: full-precision bank and statistics, in safetensors, no pickle.

From it a model is exported again (another precision, more pictures) without the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from patchline.runtime.contract import Manifest, parse_manifest
from patchline.runtime.errors import ModelError
from patchline.runtime.same_bytes import with_sorted_metadata

_BANK = "memory_bank"
_MANIFEST = "manifest"
_PICTURES = "pictures"
_PLACE = "bank"
_ROW_PICTURES = "row_pictures"

KIND = "kind"
"""Metadata of the state of a model without a memory bank: its method."""

Place = Literal["embedded", "external"]
"""Where the deployed model has its memory bank: in its graph, or in a file beside it."""


@dataclass(frozen=True)
class TrainingState:
    """What a re-export needs.

    Attributes:
        memory_bank: float32 ``[M, D]``, in the order of picking.
        manifest: of the model it was exported as; holds statistics, scores and settings.
        pictures: digests of the pictures it was fitted on, see
            :func:`patchline.export.datasets.picture_digests`.
        bank: where the model that was exported has its bank.
        row_pictures: int32 ``[M]``, for each row of the bank the picture it came from, as an index
            into ``pictures``; ``None`` in the state of an older Patchline.
    """

    memory_bank: Tensor
    manifest: Manifest
    pictures: tuple[str, ...] = ()
    bank: Place = "embedded"
    row_pictures: Tensor | None = None


def state_path(model: Path) -> Path:
    """``bottle.onnx`` -> ``bottle.safetensors``."""
    return model.with_suffix(".safetensors")


def save_state(state: TrainingState, path: Path) -> None:
    """Write the state; for a whole-or-nothing write, write into a staging folder."""
    metadata = {
        _MANIFEST: state.manifest.to_json(),
        _PICTURES: " ".join(state.pictures),
        _PLACE: state.bank,
    }
    tensors = {_BANK: state.memory_bank.contiguous()}
    if state.row_pictures is not None:
        tensors[_ROW_PICTURES] = state.row_pictures.contiguous()
    path.write_bytes(with_sorted_metadata(safetensors.torch.save(tensors, metadata)))


def load_state(path: Path) -> TrainingState:
    """Read a state.

    Raises:
        ModelError: the file is missing, damaged or no Patchline state.
        ManifestError: its manifest is of a newer version or was edited.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(_MANIFEST)
            if metadata.get(KIND) is not None:
                raise ModelError(_of_another_kind(path, metadata[KIND]))
            if text is None or _BANK not in file.keys():  # noqa: SIM118 (no mapping)
                raise ModelError(f"{path} is no Patchline state: it holds no {_BANK} or manifest")
            bank: Tensor = file.get_tensor(_BANK)
            has_rows = _ROW_PICTURES in file.keys()  # noqa: SIM118 (as above)
            row_pictures = file.get_tensor(_ROW_PICTURES) if has_rows else None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    manifest = parse_manifest(text, str(path))
    described = manifest.required_bank()
    expected = (described.rows, described.dimension)
    if tuple(bank.shape) != expected or bank.dtype != torch.float32:
        raise ModelError(
            f"{path} holds a bank of {bank.dtype} {tuple(bank.shape)}, expected float32 {expected}"
        )
    place = metadata.get(_PLACE, "embedded")  # a state of before there was a choice
    if place not in get_args(Place):
        raise ModelError(
            f"{path} says that the bank is {place!r}, expected one of {get_args(Place)}. If it is "
            "of a newer Patchline, upgrade patchline on this machine"
        )
    pictures = tuple(metadata.get(_PICTURES, "").split())
    _check_row_pictures(row_pictures, len(bank), len(pictures), path)
    return TrainingState(bank, manifest, pictures, cast(Place, place), row_pictures)


def _of_another_kind(path: Path, kind: str) -> str:
    return (
        f"{path} is the state of a model of the method {kind}: it holds no memory bank that could "
        "be extended or exported again. Fit the class again from all its pictures (--resume goes "
        "on with a training that was interrupted)"
    )


def _check_row_pictures(found: Tensor | None, rows: int, pictures: int, path: Path) -> None:
    if found is None:
        return
    if found.shape != (rows,) or found.dtype != torch.int32:
        raise ModelError(
            f"{path} holds {_ROW_PICTURES} of {found.dtype} {tuple(found.shape)}, expected int32 "
            f"{(rows,)}"
        )
    if not bool(((found >= 0) & (found < pictures)).all()):
        raise ModelError(f"{path} holds {_ROW_PICTURES} beyond its {pictures} pictures")
