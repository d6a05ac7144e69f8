"""What a checkpoint holds of a training, and what it is the training of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchline.export.config_train import TrainSettings
from patchline.export.datasets import digest_of
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.noise import AdaptiveFeatureNoise, ScaleBank
from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import TrainingError

_INDIFFERENT = {"checkpoint_every", "evaluate_every"}  # change no number
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_SCALES = 3


def trained_parts(model: ReverseDistillation) -> nn.ModuleDict:
    """The networks that are trained, by name."""
    return nn.ModuleDict({"bottleneck": model.bottleneck, "student": model.student})


def identity_of(
    model: ReverseDistillation, pictures: tuple[Path, ...], settings: TrainSettings, seed: int
) -> dict[str, Any]:
    """What decides a training's numbers, by dotted name; reads the pictures for their digest."""
    given = settings.model_dump(mode="json", exclude=_INDIFFERENT)
    given |= {"lr": settings.learning_rate, "width_per_group": model.width_per_group}
    return {
        "backbone": model.name,
        "weights_sha256": model.weights.sha256,
        "image_size": [model.size.height, model.size.width],
        **{f"train.{name}": value for name, value in given.items()},
        "architecture": _architecture_digest(model),
        "seed": seed,
        "pictures": len(pictures),
        "pictures_sha256": digest_of(pictures),
    }


def state_tensors(
    model: ReverseDistillation,
    optimizer: torch.optim.Optimizer,
    noise: AdaptiveFeatureNoise | None,
) -> dict[str, Tensor]:
    """Everything that a training changes, and its noise's banks, by name."""
    tensors = dict(trained_parts(model).state_dict())
    for number, moments in optimizer.state_dict()["state"].items():
        for name in _MOMENTS:
            tensors[f"optimizer.{number}.{name}"] = moments[name]
    for number, bank in enumerate(noise.banks if noise else ()):
        tensors[f"noise.{number}.memory_bank"] = bank.memory_bank
        tensors[f"noise.{number}.deviation"] = bank.deviation
        tensors[f"noise.{number}.statistics"] = torch.tensor(
            [bank.statistics.mean, bank.statistics.std], dtype=torch.float64
        )
    return tensors


def restore(
    tensors: dict[str, Tensor], model: ReverseDistillation, optimizer: torch.optim.Optimizer
) -> None:
    """Bring networks and optimiser to the state of a checkpoint.

    Raises:
        TrainingError: tensors are missing, or have other shapes.
    """
    parts = trained_parts(model)
    try:
        parts.load_state_dict({name: tensors[name] for name in parts.state_dict()})
        state = optimizer.state_dict()
        if any(name.startswith("optimizer.") for name in tensors):
            state["state"] = {
                number: {name: tensors[f"optimizer.{number}.{name}"] for name in _MOMENTS}
                for number in state["param_groups"][0]["params"]
            }
        optimizer.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint does not fit this training: {error}. Start anew without --resume"
        ) from error


def banks_of(tensors: dict[str, Tensor]) -> tuple[ScaleBank, ...]:
    """The noise's banks of a checkpoint.

    Raises:
        TrainingError: they are missing.
    """
    try:
        return tuple(_bank_of(tensors, number) for number in range(_SCALES))
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint holds no noise ({error}). Start anew without --resume"
        ) from error


def _bank_of(tensors: dict[str, Tensor], number: int) -> ScaleBank:
    mean, std = tensors[f"noise.{number}.statistics"].tolist()
    return ScaleBank(
        tensors[f"noise.{number}.memory_bank"],
        tensors[f"noise.{number}.deviation"],
        DistanceStatistics(mean=mean, std=std),
    )


def _architecture_digest(model: ReverseDistillation) -> str:
    shapes = [f"{k} {tuple(v.shape)}" for k, v in trained_parts(model).state_dict().items()]
    return hashlib.sha256("\n".join(shapes).encode()).hexdigest()
