"""Settings of a training: the table ``[train]`` of :class:`patchline.export.config.FitSettings`.

Defaults of the optimiser: Deng & Li, CVPR 2022, and DESIGN section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

DISTILLATION = "reverse-distillation"
"""The method that is trained and keeps no memory bank."""

LR_OF_BATCH = 0.005 / 8
"""Learning rate per picture of a batch, where none is given."""

# Strict, or true would be one epoch, and "0.1" a number.
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Flag = Annotated[bool, Field(strict=True)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Rate = Annotated[float, Field(strict=True, gt=0, le=10)]
Decay = Annotated[float, Field(strict=True, ge=0, le=1)]
Momentum = Annotated[float, Field(strict=True, ge=0, lt=1)]
Noise = Annotated[float, Field(strict=True, ge=0, le=10)]


class TrainSettings(BaseModel):
    """How a student is trained; only ``reverse-distillation`` is.

    Attributes:
        epochs: passes over the pictures.
        batch_size: pictures of a step.
        lr: learning rate; ``None``: 0.005 for a batch of 8, in proportion for others.
        betas: of AdamW.
        weight_decay: of AdamW.
        warmup_epochs: in which the learning rate rises from zero, evenly.
        decay_at: share of the epochs after which the learning rate is multiplied by
            ``decay_factor``.
        decay_factor: in (0, 1].
        mixed_precision: whether a CUDA device computes in half precision where that is safe; the
            CPU never does.
        noise: whether the features that enter the bottleneck are disturbed.
        noise_min: smallest standard deviation of that noise, in those of the channel.
        noise_max: largest.
        noise_warmup_epochs: in which the noise rises from nothing, evenly.
        noise_coreset_ratio: share of patches kept in the banks that the noise is adapted with.
        checkpoint_every: epochs from one checkpoint to the next.
        evaluate_every: epochs from one evaluation of the test pictures to the next; changes nothing
            but what a tracker is told.
        width_per_group: width of the student's residual blocks; ``None``: its teacher's.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False
    )

    epochs: Positive = 100
    batch_size: Positive = 8
    lr: Rate | None = None
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    weight_decay: Decay = 1e-4
    warmup_epochs: Count = 5
    decay_at: Share = 0.8
    decay_factor: Share = 0.1
    mixed_precision: Flag = True
    noise: Flag = False
    noise_min: Noise = 0.01
    noise_max: Noise = 0.3
    noise_warmup_epochs: Count = 10
    noise_coreset_ratio: Share = 0.01
    checkpoint_every: Positive = 10
    evaluate_every: Positive = 10
    width_per_group: Positive | None = None

    @model_validator(mode="after")
    def _check_range(self) -> TrainSettings:
        if self.noise_min > self.noise_max:
            raise ValueError(f"noise_min {self.noise_min} lies above noise_max {self.noise_max}")
        return self

    @property
    def learning_rate(self) -> float:
        """The learning rate in use, after the warm-up and before the decay."""
        return self.lr if self.lr is not None else LR_OF_BATCH * self.batch_size

    @property
    def decay_epoch(self) -> int:
        """Epochs before the learning rate falls: ``decay_at`` of them, rounded up."""
        # A little less than the product, because 0.28 * 100 is 28.000000000000004.
        return math.ceil(self.decay_at * self.epochs - 1e-9)

    def contradictions(self) -> Iterator[str]:
        """A sentence for each pair of fields that makes no sense together."""
        if self.warmup_epochs > self.decay_epoch:
            yield (
                f"train.warmup_epochs is {self.warmup_epochs}, and the learning rate falls again "
                f"after {self.decay_epoch} of {self.epochs} epochs (train.decay_at): shorten the "
                "warm-up, such as train.warmup_epochs=0, or train longer"
            )
        if self.noise and self.noise_warmup_epochs > self.epochs:
            yield (
                f"train.noise_warmup_epochs is {self.noise_warmup_epochs}, so that the noise would "
                f"never be whole in {self.epochs} epochs: shorten it, or train longer"
            )
