"""The epochs of a training, with a checkpoint at every point where it may stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from patchline.export.config_train import TrainSettings
from patchline.export.distillation.checkpoint import (
    Checkpoint,
    Progress,
    check_finite,
    has_checkpoint,
    last_good,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from patchline.export.distillation.frames import TrainingFrames
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.noise import AdaptiveFeatureNoise, ScaleBank
from patchline.export.distillation.noise_banks import fit_banks
from patchline.export.distillation.schedule import batches_of_epoch
from patchline.export.distillation.trainer import StepFigures, Trainer
from patchline.export.distillation.training_state import (
    banks_of,
    identity_of,
    restore,
    state_tensors,
    trained_parts,
)
from patchline.export.distillation.uninterrupted import uninterrupted
from patchline.export.tracking.base import Tracker
from patchline.runtime.clock import SYSTEM_CLOCK
from patchline.runtime.progress import Advance, Steps

Validate = Callable[[ReverseDistillation, int], None]
"""Given the model under training and the number of epochs that are over, it judges the model.

It may freeze it and put it into evaluation mode; the training undoes both.
"""


class TrainingLoop:
    """A training under way; see :func:`patchline.export.distillation.training.train`.

    Attributes:
        progress: how far it is.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        model: ReverseDistillation,
        pictures: tuple[Path, ...],
        settings: TrainSettings,
        seed: int,
        device: torch.device,
        checkpoints: Path | None,
    ) -> None:
        self.progress = Progress()
        self._model, self._pictures, self._settings = model, pictures, settings
        self._seed, self._device, self._checkpoints = seed, device, checkpoints
        self._is_earlier_there, self._is_whole = False, True
        self._identity = identity_of(model, pictures, settings, seed) if checkpoints else {}
        self.steps_per_epoch = len(self._batches(0))
        self._trainer = Trainer(
            model, settings, seed, self.steps_per_epoch, device, last_good=self.last_good
        )

    @property
    def noise(self) -> AdaptiveFeatureNoise | None:
        """The noise, where there is one."""
        return self._trainer.noise

    def last_good(self) -> str:
        """A sentence about the checkpoint of this training that is left after a failure."""
        return last_good(None if self._is_earlier_there else self._checkpoints)

    def prepare(
        self, resume: bool, budget_bytes: int, steps: Steps, tell: Callable[[str], None]
    ) -> None:
        """Read the checkpoint and the frames, and fit the noise.

        Raises:
            TrainingError: as for :func:`patchline.export.distillation.checkpoint.load_checkpoint`.
            DataError: a picture cannot be read.
        """
        self._is_earlier_there = not resume and has_checkpoint(self._checkpoints)
        found = None
        if resume and self._checkpoints is not None:
            found = load_checkpoint(self._checkpoints, self._identity)
            restore(found.tensors, self._model, self._trainer.optimizer)
            self._restore_scaler(found.progress.scaler, tell)
            self.progress = found.progress
        self._frames = TrainingFrames(self._pictures, self._model.size, budget_bytes, steps)
        if self._settings.noise:
            banks = banks_of(found.tensors) if found else self._fit_banks(budget_bytes, steps)
            self._trainer.noise = AdaptiveFeatureNoise(
                banks, smallest=self._settings.noise_min, largest=self._settings.noise_max
            ).to(self._device)

    def run(self, tracker: Tracker, steps: Steps, validate: Validate | None) -> None:
        """Train the epochs that are left.

        Raises:
            TrainingError: the loss is no number, or gradients or networks are not.
            KeyboardInterrupt: on Ctrl-C, with the checkpoint written; where a second one came
                within a batch, the one before it stays.
        """
        total = self._settings.epochs * self.steps_per_epoch
        try:
            with steps.step(f"Training {self._settings.epochs} epochs", total) as advance:
                while self.progress.epoch < self._settings.epochs:
                    self._epoch(tracker, advance)
                    epoch = self.progress.epoch
                    if self._is_due(epoch, self._settings.checkpoint_every):
                        self._save()
                    if validate is not None and self._is_due(epoch, self._settings.evaluate_every):
                        validate(self._model, epoch)
        except KeyboardInterrupt:
            if self._checkpoints is not None and self._is_whole and not self._would_replace_more():
                self._save()
            raise

    def _is_due(self, epoch: int, every: int) -> bool:
        return epoch % every == 0 or epoch == self._settings.epochs

    def _would_replace_more(self) -> bool:
        """Whether an earlier training's checkpoint would give way to less than an epoch."""
        return self._is_earlier_there and self.progress.epoch == 0

    def _epoch(self, tracker: Tracker, advance: Advance) -> None:
        epoch, first = self.progress.epoch, self.progress.batch
        batches = self._batches(epoch)[first:]
        self._model.train()  # again each time, because whoever validates may have frozen it
        trained_parts(self._model).requires_grad_(True)
        started = SYSTEM_CLOCK.monotonic()
        for numbers, frames in zip(batches, self._frames.batches(batches), strict=True):
            read = SYSTEM_CLOCK.monotonic()
            with uninterrupted():
                figures = self._step(frames, numbers)
            ended = SYSTEM_CLOCK.monotonic()
            done = epoch * self.steps_per_epoch + self.progress.batch
            times = {"time/data_s": read - started, "time/batch_s": ended - started}
            share = {"epoch": done / self.steps_per_epoch}
            tracker.log({**_named(figures), **times, **share}, step=done)
            advance(done)
            started = SYSTEM_CLOCK.monotonic()
        losses = self.progress.batch_losses
        mean = sum(losses) / len(losses)
        self.progress = Progress(epoch=epoch + 1, losses=(*self.progress.losses, mean))

    def _step(self, frames: Tensor, numbers: list[int]) -> StepFigures:
        progress = self.progress
        pictures = [self._pictures[number] for number in numbers]
        self._is_whole = False  # until the progress tells of what the networks have learned
        figures = self._trainer.step(frames, progress.epoch, progress.batch, pictures)
        losses = (*progress.batch_losses, figures.loss)
        self.progress = replace(progress, batch=progress.batch + 1, batch_losses=losses)
        self._is_whole = True
        return figures

    def _save(self) -> None:
        progress = replace(self.progress, scaler=self._trainer.scaler.state_dict())
        tensors = state_tensors(self._model, self._trainer.optimizer, self._trainer.noise)
        if self._checkpoints is None:
            check_finite(tensors, progress, None)
        else:
            if self._is_earlier_there:
                check_finite(tensors, progress, None)
                set_aside(self._checkpoints)
                self._is_earlier_there = False
            save_checkpoint(Checkpoint(self._identity, progress, tensors), self._checkpoints)

    def _restore_scaler(self, state: Mapping[str, float], tell: Callable[[str], None]) -> None:
        mixes = self._trainer.scaler.is_enabled()
        if bool(state) != mixes:
            half, whole = "half precision (train.mixed_precision on CUDA)", "float32"
            was, is_now = (whole, half) if mixes else (half, whole)
            tell(
                f"the training began in {was} and goes on in {is_now}, as this device has it: its "
                "numbers are not those of a training on one device"
            )
        elif mixes:
            self._trainer.scaler.load_state_dict(dict(state))

    def _fit_banks(self, budget_bytes: int, steps: Steps) -> tuple[ScaleBank, ...]:
        return fit_banks(
            self._frames,
            self._trainer.features_of,
            ratio=self._settings.noise_coreset_ratio,
            batch_size=self._settings.batch_size,
            seed=self._seed,
            budget_bytes=budget_bytes,
            steps=steps,
        )

    def _batches(self, epoch: int) -> list[list[int]]:
        return batches_of_epoch(len(self._pictures), self._settings.batch_size, self._seed, epoch)


def _named(figures: StepFigures) -> dict[str, float]:
    scales = {f"loss/scale_{at}": value for at, value in enumerate(figures.scales, 1)}
    return {
        "loss": figures.loss,
        **scales,
        "lr": figures.lr,
        "time/optimizer_s": figures.optimizer_s,
    }
