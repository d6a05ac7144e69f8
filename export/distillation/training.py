"""Train bottleneck and student on good pictures (Deng & Li, CVPR 2022; noise: DESIGN section 3).

On the CPU a training that was interrupted and resumed gives the same numbers, bit by bit, as one
that was not; on a GPU as nearly as its kernels repeat themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from patchline.export.config_train import TrainSettings
from patchline.export.distillation.checkpoint import last_good
from patchline.export.distillation.loop import TrainingLoop, Validate
from patchline.export.distillation.memory_errors import LEAST_BATCH, memory_errors
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.noise import NoiseSummary
from patchline.export.float32 import full_float32
from patchline.export.tracking.base import Tracker
from patchline.runtime.cli.command import print_warning
from patchline.runtime.errors import ConfigurationError, DataError
from patchline.runtime.files import check_writable
from patchline.runtime.progress import Steps

MEMORY_BUDGET_BYTES = 4 << 30


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        epochs: that are over.
        loss: mean of the last epoch, 0 to 6.
        losses: mean of each epoch.
        noise: what the noise was; ``None`` without.
    """

    epochs: int
    loss: float
    losses: tuple[float, ...]
    noise: NoiseSummary | None


@full_float32()
def train(
    model: ReverseDistillation,
    pictures: Sequence[Path],
    settings: TrainSettings,
    *,
    device: torch.device,
    tracker: Tracker,
    steps: Steps,
    seed: int = 0,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
    checkpoints: Path | None = None,
    resume: bool = False,
    validate: Validate | None = None,
    tell: Callable[[str], None] = print_warning,
) -> TrainingResult:
    """Train a model in place; it is left on the device and in evaluation mode.

    Args:
        model: its bottleneck and student are trained.
        pictures: good ones, at least a batch.
        settings: of the training.
        device: where to compute.
        tracker: told ``loss``, ``loss/scale_1`` (fine) to ``loss/scale_3``, ``lr``, ``epoch``,
            ``time/batch_s``, ``time/data_s`` and ``time/optimizer_s`` at each step.
        steps: shows progress.
        seed: of the pictures' order, the noise and its banks.
        memory_budget_bytes: for frames that are held and patches that the noise's banks are
            chosen from; networks and activations come on top.
        checkpoints: folder of the checkpoint, which is written every ``checkpoint_every`` epochs,
            at the end and on Ctrl-C, each in place of the one before. That of an earlier training
            stays until there is a first one, which a Ctrl-C in the first epoch is not, and is kept
            beside it then.
        resume: whether to go on from the checkpoint there.
        validate: called every ``evaluate_every`` epochs and after the last; no part of the numbers.
        tell: given one sentence where a checkpoint is of a device with another precision.

    Raises:
        DataError: fewer pictures than a batch, or one cannot be read.
        ConfigurationError: a batch of one picture, or nowhere to resume from.
        TrainingError: loss or gradients are no numbers, the memory does not suffice, or the
            checkpoint is damaged or of another training.
        WriteError: the checkpoint cannot be written.
        KeyboardInterrupt: on Ctrl-C, with the checkpoint written; on a second one within the batch
            without.
    """
    check_batch(len(pictures), settings)
    if resume and checkpoints is None:
        raise ConfigurationError("a training can be resumed only where its checkpoints are kept")
    if checkpoints is not None and not resume:
        check_writable(checkpoints)
    paths = tuple(pictures)
    with memory_errors(
        settings.batch_size, model.size, lambda: last_good(checkpoints if resume else None)
    ):
        model.to(device)
    loop = TrainingLoop(model, paths, settings, seed, device, checkpoints)
    with memory_errors(settings.batch_size, model.size, loop.last_good):
        loop.prepare(resume, memory_budget_bytes, steps, tell)
        loop.run(tracker, steps, validate)
    model.eval()
    losses, noise = loop.progress.losses, loop.noise
    return TrainingResult(
        epochs=len(losses),
        loss=losses[-1],
        losses=losses,
        noise=noise.summary(settings.noise_warmup_epochs) if noise else None,
    )


def check_batch(pictures: int, settings: TrainSettings) -> None:
    """Refuse what makes no batch.

    Raises:
        ConfigurationError: a batch of one picture.
        DataError: fewer pictures than a batch.
    """
    if settings.batch_size < LEAST_BATCH:
        raise ConfigurationError(
            f"train.batch_size is {settings.batch_size}, expected at least {LEAST_BATCH}: batch "
            "norm learns nothing from a single picture"
        )
    if pictures < LEAST_BATCH:
        raise DataError(
            f"{pictures} good pictures to train on are too few: at least {LEAST_BATCH} are "
            "needed, and 100 or more to learn what good parts look like"
        )
    if pictures < settings.batch_size:
        raise DataError(
            f"{pictures} good pictures to train on are fewer than a batch of "
            f"{settings.batch_size}. Give more, or a smaller batch: "
            f"--set train.batch_size={pictures}"
        )
