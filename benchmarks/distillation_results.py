"""What all trainings of one result of the distillation benchmark share, and those made before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from patchline.benchmarks.report import without_folders
from patchline.benchmarks.schema import check_file
from patchline.export.config import FitSettings
from patchline.runtime.errors import ConfigurationError

_SHOWN = {"epochs", "batch_size", "lr", "noise", "checkpoint_every", "evaluate_every"}
"""Settings of a training that stand in the results under another name, or decide no number."""


def described(settings: FitSettings, config: str) -> dict[str, Any]:
    """The settings that all trainings of a result share."""
    trained = settings.train
    return {
        "config": config,
        "backbone": settings.backbone,
        "weights": Path(settings.weights).name if settings.weights else "hub",
        "image_size_px": settings.image_size[0],
        "epochs": trained.epochs,
        "batch": trained.batch_size,
        "learning_rate": trained.learning_rate,
        "training": trained.model_dump(mode="json", exclude=_SHOWN, exclude_none=True),
        "held_out_share": settings.held_out_share,
        "false_alarm_rate": settings.false_alarm_rate,
        "seed": settings.seed,
        "device": _device_name(settings.device),
    }


def earlier_classes(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The classes of a result that is there already.

    Raises:
        ConfigurationError: it was made with other settings (says which).
        DataError: it is no result.
    """
    if not path.is_file():
        return {}
    found = check_file(path).results
    classes: dict[str, Any] = found.pop("classes", {})
    expected = json.loads(json.dumps(without_folders(described)))
    if differing := list(_differences(found, expected)):
        raise ConfigurationError(
            f"{path} holds trainings with other settings: {'; '.join(differing)}. Give the same as "
            "then, another --out, or remove that file"
        )
    return classes


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*expected, *found]):
        there, here = found.get(name), expected.get(name)
        if there != here:
            yield f"{name} is {json.dumps(there)} there and {json.dumps(here)} here"


def _device_name(asked: str) -> str:
    if asked == "cpu" or not torch.cuda.is_available():
        return "CPU"
    return torch.cuda.get_device_name()
