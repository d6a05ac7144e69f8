"""Tiny frames, networks and trainings for the tests of this folder."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchline.export.config_train import TrainSettings
from patchline.export.distillation.bottleneck import Features
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.training import TrainingResult, train
from patchline.export.tracking.base import NoTracker, Tracker
from patchline.runtime.contract import ModelSize
from patchline.runtime.progress import SilentSteps

CPU = torch.device("cpu")
TINY = TrainSettings(epochs=4, batch_size=4, warmup_epochs=1, lr=0.002)


def size_of(height: int, width: int) -> ModelSize:
    return ModelSize(height=height, width=width)


def draw_frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def tiny_model(**changes: Any) -> ReverseDistillation:
    """A ResNet-18 at 32 px with its student."""
    return ReverseDistillation("resnet18", size_of(32, 32), "random", **changes)


class SlimBottleneck(nn.Module):
    """A stand-in of few weights, so that a checkpoint is written in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(channels, 8, side, stride=side)
            for channels, side in ((64, 8), (128, 4), (256, 2))
        )
        self.norm = nn.BatchNorm2d(24)

    def forward(self, features: Features) -> Tensor:
        joined = [scale(layer) for scale, layer in zip(self.scales, features, strict=True)]
        embedding: Tensor = self.norm(torch.cat(joined, dim=1))
        return embedding.relu()


class SlimStudent(nn.Module):
    """Its other half."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(24, channels, side, stride=side),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for channels, side in ((64, 8), (128, 4), (256, 2))
        )

    def forward(self, embedding: Tensor) -> Features:
        fine, middle, coarse = (scale(embedding) for scale in self.scales)
        return fine, middle, coarse


def slim_model(seed: int = 0) -> ReverseDistillation:
    """The teacher of :func:`tiny_model` with a hundredth of the weights to train."""
    model = copy.deepcopy(_slim())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.bottleneck, model.student = SlimBottleneck(), SlimStudent()  # type: ignore[assignment]
    return model


@functools.cache
def _slim() -> ReverseDistillation:
    model = tiny_model()
    model.bottleneck, model.student = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return model


def settings_with(**changes: Any) -> TrainSettings:
    return TrainSettings(**(TINY.model_dump() | changes))


def train_tiny(
    pictures: list[Path],
    settings: TrainSettings = TINY,
    *,
    model: ReverseDistillation | None = None,
    tracker: Tracker | None = None,
    **more: Any,
) -> tuple[ReverseDistillation, TrainingResult]:
    model = model or slim_model()
    result = train(
        model,
        pictures,
        settings,
        device=CPU,
        tracker=tracker or NoTracker(),
        steps=more.pop("steps", SilentSteps()),
        **more,
    )
    return model, result


class Listener(NoTracker):
    """Keeps what it is told; at the step ``interrupt_at`` somebody presses Ctrl-C."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []
        self._interrupt_at = interrupt_at

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.told.append((step, dict(values)))
        if step == self._interrupt_at:
            raise KeyboardInterrupt
