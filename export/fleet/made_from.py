"""The record of a model that was made: digests of its pictures, its settings and its files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors

from patchline.export.config import FitSettings
from patchline.export.config_problems import OF_A_BANK
from patchline.export.config_train import DISTILLATION
from patchline.export.datasets import picture_digests
from patchline.export.fleet.record import JobRecord, load_record
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.export.state import TrainingState, state_path
from patchline.export.weights import RANDOM
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.contract import model_digest
from patchline.runtime.errors import ManifestError
from patchline.runtime.files import sha256_of_file

HUB = "hub"
RATE = "false_alarm_rate"

_OF_THE_MACHINE = {"device", "memory_budget_bytes", "batch_size"}
"""Fields that say how a fit is computed, and not what."""


def made_from(job: Job, output: Output, base: TrainingState | None) -> JobRecord:
    """What a class is about to be made from; its files are not known yet.

    Before it is made, not after: a picture that is replaced meanwhile makes the model out of date.

    Args:
        job: how it comes about.
        output: where to.
        base: the model that its pictures are added to.

    Raises:
        OSError: a picture cannot be read, and the settings do not leave such out.
    """
    before = earlier_record(output.folder, job.pictures.class_name)
    pictures, added = _pictures(job, base, before)
    settings = settings_that_count(job.settings)
    if base is not None and before is not None:  # else it is the rate of a later calibration
        settings[RATE] = before.settings.get(RATE, settings[RATE])
    return JobRecord(
        class_name=job.pictures.class_name,
        patchline=version("patchline"),
        pictures=pictures,
        added=added,
        settings=settings,
        state=state_digest(output.state, job.pictures.class_name),
        files={},
    )


def earlier_record(folder: Path, class_name: str) -> JobRecord | None:
    """The record that is there; ``None`` also where it cannot be read."""
    try:
        return load_record(folder, class_name)
    except ManifestError:
        return None


def digests_of(job: Job) -> tuple[str, ...]:
    """Digests of a class's pictures; without those that do not open, where they are left out.

    Raises:
        OSError: a picture cannot be read, and the settings do not leave such out.
    """
    if not job.settings.skip_unreadable:
        return picture_digests(job.pictures.paths)
    found: list[str] = []
    for path in job.pictures.paths:
        with contextlib.suppress(OSError):  # the fit leaves it out as well, and says so
            found += picture_digests((path,))
    return tuple(found)


def settings_that_count(settings: FitSettings) -> dict[str, Any]:
    """Fields of the settings that make another model, by name; weights by their digest."""
    unused = {*OF_A_BANK, "score"} if settings.method == DISTILLATION else {"train"}
    fields = settings.model_dump(mode="json", exclude=unused | _OF_THE_MACHINE)
    if settings.method != DISTILLATION:
        fields["score"] = settings.score_name
    fields["weights"] = weights_digest(settings.weights)
    return fields


def weights_digest(weights: str | None) -> str | None:
    """``random``, ``hub`` or the SHA-256 of a file; ``None`` where it is not there."""
    if weights is None or weights == RANDOM:
        return weights or HUB
    path = Path(weights)
    return sha256_of_file(path) if path.is_file() else None


def state_digest(folder: Path | None, class_name: str) -> str | None:
    """SHA-256 of the state in the folder of ``--state``; ``None`` without that, or without it."""
    path = None if folder is None else state_path(folder / f"{class_name}.onnx")
    return sha256_of_file(path) if path is not None and path.is_file() else None


def file_digests(paths: Sequence[Path]) -> dict[str, str]:
    """Digests of a model's files by name.

    Args:
        paths: of the model's graph, and the state and bank of the class.
    """
    return {path.name: file_digest(path) for path in paths}


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a bank without its manifest, where a later threshold lies.

    Raises:
        OSError: it is not there.
        safetensors.SafetensorError: it is no bank file.
    """
    if path.suffix == ".onnx":
        return model_digest(path)
    return _digest_of_tensors(path) if path.suffix == BANK_SUFFIX else sha256_of_file(path)


def _digest_of_tensors(path: Path) -> str:
    digest = hashlib.sha256()
    with safetensors.safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            array = file.get_tensor(name)
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _pictures(
    job: Job, base: TrainingState | None, before: JobRecord | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Digests of the pictures, and of those that ``--extend`` added."""
    here = digests_of(job)
    if base is not None:
        pictures, added = (before.pictures, before.added) if before else (base.pictures, ())
        return pictures, added + here
    if job.state is None:
        return here, ()
    fitted, known = set(job.state.pictures), set(here)
    own = tuple(digest for digest in here if digest in fitted)
    return own, tuple(digest for digest in job.state.pictures if digest not in known)
