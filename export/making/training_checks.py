"""What a training and the options of ``export-model`` have to do with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchline.export.config_train import DISTILLATION
from patchline.export.datasets import labelled_folder
from patchline.export.precision.again import Job
from patchline.runtime.cli.command import print_warning
from patchline.runtime.errors import ConfigurationError, PatchlineError

if TYPE_CHECKING:
    from patchline.export.distillation.validation import Validation
    from patchline.export.tracking.base import Tracker
    from patchline.export.tracking.metrics_log import MetricsLog


def check_extended(fields: Mapping[str, Any], *, is_resumed: bool) -> None:
    """Refuse ``--extend`` for what is trained.

    Args:
        fields: fields of the settings that were given.
        is_resumed: whether ``--resume`` was given.

    Raises:
        ConfigurationError: another method than one with a memory bank, or ``--resume``.
    """
    if fields.get("method") == DISTILLATION:
        raise ConfigurationError(
            f"--extend adds pictures to a memory bank, and {DISTILLATION} has none: train anew "
            "with all pictures, without --extend"
        )
    if is_resumed:
        raise ConfigurationError(
            "--resume goes on with a training, and --extend adds to a memory bank: leave one of "
            "them out"
        )


def check_state(fields: Mapping[str, Any], state: Path | None) -> None:
    """Refuse ``--state`` for what is trained.

    Raises:
        ConfigurationError: both were given.
    """
    if state is not None and fields.get("method") == DISTILLATION:
        raise ConfigurationError(
            f"--state makes a model with a memory bank again, and {DISTILLATION} has none: train "
            "it (--resume goes on from a checkpoint) without --state"
        )


def check_resumed(jobs: Sequence[Job], out: Path, *, is_resumed: bool) -> None:
    """Refuse ``--resume`` where there is nothing to go on with.

    Args:
        jobs: all classes of the call; those without a checkpoint are trained from the start.
        out: folder of the models.
        is_resumed: whether it was given.

    Raises:
        ConfigurationError: nothing is trained, or no class has a checkpoint.
    """
    if not is_resumed:
        return
    methods = {job.settings.method for job in jobs}
    if DISTILLATION not in methods:
        raise ConfigurationError(
            f"--resume goes on with a training, and {', '.join(sorted(methods))} has none: leave "
            f"it out, or add --method {DISTILLATION}"
        )
    folders = [checkpoint_folder(out, job) for job in jobs]
    if not any(map(has_checkpoint, folders)):
        raise ConfigurationError(
            f"there is no checkpoint to go on from in {', '.join(map(str, folders))}. Start anew "
            "without --resume"
        )


def checkpoint_folder(out: Path, job: Job) -> Path:
    """Where the checkpoint of a class is: not beside the files that go to a device."""
    return out / "checkpoints" / job.pictures.class_name


def has_checkpoint(folder: Path) -> bool:
    """Whether a training left something to go on from."""
    from patchline.export.distillation import checkpoint

    return checkpoint.has_checkpoint(folder)


def checkpoint_mark(folder: Path) -> tuple[int, int] | None:
    """What tells a checkpoint from the next one in its place; ``None`` where there is none."""
    from patchline.export.distillation.checkpoint import checkpoint_path

    try:
        found = checkpoint_path(folder).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def how_to_go_on(name: str, folder: Path, *, is_own: bool) -> str:
    """What ``--resume`` does after an interrupt.

    Args:
        name: of the class.
        folder: of its checkpoint.
        is_own: whether the interrupted training wrote that, or went on from it.
    """
    if is_own:
        return f"{name} is not whole: go on with --resume from its checkpoint {folder}"
    return (
        f"{name} is not whole, and this training wrote no checkpoint: the one in {folder} is still "
        "that of the earlier training, from which --resume goes on"
    )


def earlier_checkpoint(name: str, folder: Path) -> str:
    """What becomes of the checkpoint of an earlier training, and how to go on from it."""
    return (
        f"{name} is trained from the start: the earlier checkpoint in {folder} is kept as "
        "last.before.safetensors once there is a newer one. To go on from it instead, press Ctrl-C "
        "in the first epoch and add --resume"
    )


def validation_of(job: Job, tracker: Tracker, metrics: MetricsLog | None) -> Validation | None:
    """What judges the test pictures of a class during its training, where that is tracked.

    What keeps it from being judged is a warning: the training does not need it.

    Args:
        job: the class; the last epoch's model is left to who judges the exported file.
        tracker: gets heat maps.
        metrics: get the metrics; ``None`` where nothing is tracked.
    """
    folder = None if metrics is None else labelled_folder(job.pictures)
    if metrics is None or folder is None:
        return None
    from patchline.export.distillation.validation import Validation

    size, epochs = job.settings.model_size, job.settings.train.epochs
    try:
        return Validation(folder, size, tracker, metrics, exported_epoch=epochs, tell=print_warning)
    except PatchlineError as error:
        print_warning(f"{job.pictures.class_name} is not evaluated during its training: {error}")
        return None
