"""One step of a training, and what can go wrong in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from patchline.export.config_train import TrainSettings
from patchline.export.distillation.bottleneck import Features
from patchline.export.distillation.loss import cosine_loss
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.noise import AdaptiveFeatureNoise
from patchline.export.distillation.schedule import derived_seed, learning_rate, noise_strength
from patchline.export.distillation.training_state import trained_parts
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import TrainingError

LEAST_SCALE = 1.0
"""Of the loss in mixed precision. It halves with each step whose gradients are no numbers."""


@dataclass(frozen=True)
class StepFigures:
    """What a step shows.

    Attributes:
        loss: summed over the scales, 0 to 6.
        scales: the loss of each, fine to coarse.
        lr: learning rate.
        optimizer_s: seconds that the optimiser took.
    """

    loss: float
    scales: tuple[float, ...]
    lr: float
    optimizer_s: float


class Trainer:
    """Trains bottleneck and student, a batch at a time.

    Args:
        model: on the device.
        settings: of the training.
        seed: of the noise.
        steps_per_epoch: batches of an epoch.
        device: where to compute.
        clock: for the figures.
        last_good: a sentence about what is left after a failure.

    Attributes:
        optimizer: AdamW over bottleneck and student.
        scaler: of the loss in mixed precision; does nothing without it.
        noise: for the features that enter the bottleneck.
    """

    def __init__(
        self,
        model: ReverseDistillation,
        settings: TrainSettings,
        seed: int,
        steps_per_epoch: int,
        device: torch.device,
        clock: Clock = SYSTEM_CLOCK,
        *,
        last_good: Callable[[], str],
    ) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.noise: AdaptiveFeatureNoise | None = None
        self._seed, self._steps_per_epoch, self._clock = seed, steps_per_epoch, clock
        self._last_good = last_good
        self._mixes = settings.mixed_precision and device.type == "cuda"
        self.scaler = GradScaler("cuda", enabled=self._mixes)
        self.optimizer = torch.optim.AdamW(
            trained_parts(model).parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )

    def features_of(self, frames: Tensor) -> Features:
        """The teacher's features of uint8 frames ``[B, H, W, 3]``, as the training sees them."""
        with self._precision():
            return self.model.teacher_features(frames.to(self.device))

    def step(self, frames: Tensor, epoch: int, batch: int, pictures: Sequence[Path]) -> StepFigures:
        """Train on one batch.

        Args:
            frames: uint8 ``[B, H, W, 3]``.
            epoch: counted from 0.
            batch: of the epoch, counted from 0.
            pictures: of the batch, to name them.

        Raises:
            TrainingError: the loss is no number, or in mixed precision its gradients have not been
                for long; bottleneck and student have not learned from it.
        """
        step = epoch * self._steps_per_epoch + batch
        rate = learning_rate(step, self._steps_per_epoch, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clean = self.features_of(frames)
        loss, scales = cosine_loss(clean, self._rebuilt(clean, epoch, batch))
        figures = torch.stack((loss, *scales)).tolist()  # together: a GPU is waited for once
        if not math.isfinite(figures[0]):
            raise TrainingError(self._no_number(figures[0], clean, (epoch, batch), pictures))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        started = self._now()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if (scale := self.scaler.get_scale()) < LEAST_SCALE:
            raise TrainingError(self._no_gradient(scale, (epoch, batch), pictures))
        return StepFigures(figures[0], tuple(figures[1:]), rate, self._now() - started)

    def _rebuilt(self, clean: Features, epoch: int, batch: int) -> Features:
        """What the student makes of the features, which are disturbed on the way in."""
        given = clean
        if self.noise is not None:
            generator = torch.Generator(self.device)
            generator.manual_seed(derived_seed(self._seed, "noise", epoch, batch))
            given = self.noise.disturb(clean, noise_strength(epoch, self.settings), generator)
        with self._precision():
            return self.model.reconstruct(given)

    def _no_number(
        self, loss: float, clean: Features, at: tuple[int, int], pictures: Sequence[Path]
    ) -> str:
        listed = ", ".join(map(str, pictures))
        found = f"the loss is {loss} in epoch {at[0] + 1}, batch {at[1] + 1} ({listed})"
        if not all(bool(layer.isfinite().all()) for layer in clean):
            return (
                f"{found}, because the teacher's own features are not finite: its weights are "
                f"damaged, or do not fit it. {self._last_good()}"
            )
        half = " or leave half precision with train.mixed_precision=false" if self._mixes else ""
        return (
            f"{found}: the training has diverged. {self._last_good()} Start anew with "
            f"a train.lr below {self.settings.learning_rate:g}{half}"
        )

    def _no_gradient(self, scale: float, at: tuple[int, int], pictures: Sequence[Path]) -> str:
        listed = ", ".join(map(str, pictures))
        return (
            f"the gradients hold NaN or infinite values in epoch {at[0] + 1}, batch {at[1] + 1} "
            f"({listed}), as in the batches before it: the loss scale of mixed precision has "
            f"fallen to {scale:g}, expected {LEAST_SCALE:g} or more, and nothing is learned any "
            f"more. {self._last_good()} Start anew with train.mixed_precision=false or a train.lr "
            f"below {self.settings.learning_rate:g}"
        )

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self._mixes)

    def _now(self) -> float:
        if self.device.type == "cuda":  # a GPU is told what to do long before it has done it
            torch.cuda.synchronize(self.device)
        return self._clock.monotonic()
