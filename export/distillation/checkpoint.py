"""A training's checkpoint: one safetensors file, written whole or not at all; no pickle.

It holds bottleneck and student with their batch norms, the optimiser's state, the noise's banks,
and as JSON text how far the training is and what it is the training of. There is no generator's
state in it: what is drawn follows from seed, epoch and step (see
:mod:`patchline.export.distillation.schedule`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from patchline.runtime.errors import TrainingError
from patchline.runtime.files import staged_files, write_atomically, write_errors

CHECKPOINT_NAME = "last.safetensors"
BEFORE_NAME = "last.before.safetensors"
FORMAT = 1

_KEY = "patchline_training"
_SHOWN = 60


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs that are over.
        batch: batches of the next one that are over.
        losses: mean loss of each epoch that is over.
        batch_losses: losses of the batches that are over in the next one.
        scaler: state of mixed precision's loss scaler; empty without one.
    """

    epoch: int = 0
    batch: int = 0
    losses: tuple[float, ...] = ()
    batch_losses: tuple[float, ...] = ()
    scaler: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from.

    Attributes:
        identity: what it is the training of, by dotted name: architecture, settings, pictures.
        progress: how far it is.
        tensors: by name, on the CPU or not.
    """

    identity: Mapping[str, Any]
    progress: Progress
    tensors: dict[str, Tensor]


def checkpoint_path(folder: Path) -> Path:
    """The one checkpoint in a folder, of which each replaces the one before."""
    return folder / CHECKPOINT_NAME


def has_checkpoint(folder: Path | None) -> bool:
    """Whether a training left something to go on from."""
    return folder is not None and checkpoint_path(folder).is_file()


def set_aside(folder: Path) -> None:
    """Keep the checkpoint of an earlier training, in place of one that was kept before it.

    It stays where it is as well, until the next one is written there.

    Raises:
        WriteError: that is not possible; both stay as they were.
    """
    path = checkpoint_path(folder)
    with write_errors(folder), staged_files(folder) as stage:
        try:
            os.link(path, stage / BEFORE_NAME)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, stage / BEFORE_NAME)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint, whole or not at all.

    Raises:
        TrainingError: it holds NaN or infinity; the older one stays.
        WriteError: it cannot be written; likewise.
    """
    path = checkpoint_path(folder)
    check_finite(checkpoint.tensors, checkpoint.progress, folder)
    document = {
        "format": FORMAT,
        "identity": dict(checkpoint.identity),
        "progress": asdict(checkpoint.progress),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomically(path, safetensors.torch.save(tensors, {_KEY: json.dumps(document)}))
    return path


def check_finite(tensors: Mapping[str, Tensor], progress: Progress, folder: Path | None) -> None:
    """Refuse a state that no training can go on from.

    Raises:
        TrainingError: a tensor holds NaN or infinity.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"{name} holds NaN or infinite values after {progress.epoch} epochs and "
                f"{progress.batch} batches: the training has diverged. {last_good(folder)} Start "
                "anew with a lower train.lr"
            )


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint:
    """Read the checkpoint of a training.

    Args:
        folder: that it was saved in.
        identity: what is trained now.

    Raises:
        TrainingError: there is none, it is damaged or of a newer version, or it belongs to
            another training (says what differs).
    """
    path = checkpoint_path(folder)
    if not path.is_file():
        raise TrainingError(
            f"there is no checkpoint {path} to resume from. Start anew without --resume"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY, "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(text)
        _check_format(document["format"], path)
        found = Checkpoint(dict(document["identity"]), _progress(document["progress"]), tensors)
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"cannot read the checkpoint {path}: {error}. {_ANEW}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is no checkpoint of a Patchline training. {_ANEW}") from error
    _check_identity(found.identity, json.loads(json.dumps(dict(identity))), path)
    return found


def last_good(folder: Path | None) -> str:
    """A sentence about the checkpoint that is left after a failure."""
    if folder is not None and has_checkpoint(folder):
        return f"The last good checkpoint is {checkpoint_path(folder)}."
    return "No checkpoint was written yet."


_ANEW = "Start anew without --resume"


def _check_format(found: Any, path: Path) -> None:
    if found != FORMAT:
        raise TrainingError(
            f"{path} is a checkpoint of format {found}, and this Patchline reads {FORMAT}. Upgrade "
            "patchline, or start anew without --resume"
        )


def _progress(found: dict[str, Any]) -> Progress:
    return Progress(
        epoch=int(found["epoch"]),
        batch=int(found["batch"]),
        losses=tuple(map(float, found["losses"])),
        batch_losses=tuple(map(float, found["batch_losses"])),
        scaler=dict(found["scaler"]),
    )


def _check_identity(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    missing = object()
    differing = [
        name
        for name in dict.fromkeys([*expected, *found])
        if found.get(name, missing) != expected.get(name, missing)
    ]
    if differing:
        listed = "; ".join(
            f"{name} is {_shown(found, name)} there and {_shown(expected, name)} here"
            for name in differing
        )
        raise TrainingError(
            f"{path} belongs to another training: {listed}. Give the same as then, or start anew "
            "without --resume"
        )


def _shown(identity: Mapping[str, Any], name: str) -> str:
    if name not in identity:
        return "missing"
    text = json.dumps(identity[name])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
