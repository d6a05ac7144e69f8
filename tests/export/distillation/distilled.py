"""A distillation of the drawn class that takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchline.export.config import FitSettings
from patchline.export.datasets import good_pictures
from patchline.export.distillation.fit import DistilledModel, fit_distillation
from patchline.export.tracking.base import NoTracker
from patchline.runtime.progress import SilentSteps

from ..drawn import CLASS_NAME, SIZE_PX, refuse

TRAIN = {"epochs": 1, "batch_size": 4, "warmup_epochs": 0}
QUICK = FitSettings(
    method="reverse-distillation",
    backbone="resnet18",
    weights="random",
    image_size=(SIZE_PX, SIZE_PX),
    device="cpu",
    train=TRAIN,
)


def settings_with(**changes: Any) -> FitSettings:
    """The quick settings with some of them changed (and checked); ``train`` in part."""
    changes["train"] = TRAIN | changes.get("train", {})
    return FitSettings(**(QUICK.model_dump() | changes))


HALF = settings_with(precision="fp16")


def quick_distillation(data: Path, **changes: Any) -> DistilledModel:
    """Distil the drawn class below ``data``."""
    pictures = good_pictures(data, CLASS_NAME)
    settings = settings_with(**changes)
    return fit_distillation(pictures, settings, SilentSteps(), refuse, tracker=NoTracker())
