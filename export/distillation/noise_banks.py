"""Good pictures -> a memory bank per scale of the teacher, with what the noise needs beside it.

The bank is the coreset of the fit, of four fifths of the pictures; the last fifth tells how far
patches lie from a bank that has not seen them (frozen statistics, DESIGN section 3). Where all
patches would not fit the memory budget, as many of each picture are drawn as do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchline.calibration.folds import assign_folds
from patchline.export.coreset import (
    PROJECTED_DIMENSION,
    coreset_size,
    greedy_coreset,
    random_projection,
)
from patchline.export.distillation.bottleneck import Features
from patchline.export.distillation.frames import TrainingFrames
from patchline.export.distillation.noise import NEIGHBORS, ScaleBank, in_blocks
from patchline.export.distillation.schedule import derived_seed
from patchline.export.influence import influence_of_rows
from patchline.export.neighbors import NearestNeighbors
from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import DataError
from patchline.runtime.progress import Steps

MEMORY_SHARE = 0.5
"""Of the memory budget, at most, for patches that a bank may be chosen from."""

_FLOAT_BYTES = 4
_PER_ROW_BYTES = 16  # distance, norm and flags of the coreset

FeaturesOf = Callable[[Tensor], Features]
"""The teacher on a device: uint8 frames ``[B, H, W, 3]`` -> features."""


@dataclass(frozen=True)
class _Patches:
    """Patches of one scale: ``rows`` float32 ``[N * P, C]`` on the CPU, picture by picture, their
    ``projections`` on the device, ``all`` patches there were."""

    rows: Tensor
    projections: Tensor
    all: int


@torch.no_grad()
def fit_banks(
    frames: TrainingFrames,
    features_of: FeaturesOf,
    *,
    ratio: float,
    batch_size: int,
    seed: int,
    budget_bytes: int,
    steps: Steps,
) -> tuple[ScaleBank, ...]:
    """Choose a bank per scale, fine to coarse.

    Args:
        frames: at least two good pictures.
        features_of: the teacher.
        ratio: share of the patches in a bank, in (0, 1].
        batch_size: frames that the teacher is given at once.
        seed: of projection, folds, coreset and drawn patches.
        budget_bytes: the fit's memory budget; half of it may be taken.
        steps: shows progress.

    Raises:
        DataError: fewer than two pictures, or the teacher gives NaN or infinity for one.
        ConfigurationError: the ratio is outside (0, 1].
    """
    held_out = assign_folds(len(frames), seed) == 0
    scales = _collect(frames, features_of, batch_size, seed, budget_bytes, steps)
    with steps.step("Choosing the noise's memory banks", len(scales)) as advance:
        banks = []
        for scale in scales:
            banks.append(_fit_bank(scale, held_out, ratio, seed))
            advance(len(banks))
    return tuple(banks)


def _fit_bank(
    scale: _Patches, held_out: npt.NDArray[np.bool_], ratio: float, seed: int
) -> ScaleBank:
    of_held_out = torch.from_numpy(held_out).repeat_interleave(len(scale.rows) // len(held_out))
    size = min(coreset_size(scale.all, ratio), int((~of_held_out).sum()))
    picked = greedy_coreset(scale.projections, size, seed=seed, excluded=of_held_out)
    bank = scale.rows[picked.indices]
    distances = _mean_distances(
        scale.rows[of_held_out].to(scale.projections.device), bank.to(scale.projections.device)
    ).double()
    return ScaleBank(
        memory_bank=bank,
        deviation=scale.rows.std(0, correction=0),
        statistics=DistanceStatistics(
            mean=float(distances.mean()), std=float(distances.std(correction=0))
        ),
    )


def _mean_distances(rows: Tensor, bank: Tensor) -> Tensor:
    """Mean distance ``[N]`` of patches ``[N, C]`` to their nearest rows."""
    search = NearestNeighbors(bank, NEIGHBORS).to(bank.device)
    return torch.cat(
        [
            influence_of_rows(part, search.gather, search(part)).mean_distance
            for part in in_blocks(rows, len(bank))
        ]
    )


def _collect(
    frames: TrainingFrames,
    features_of: FeaturesOf,
    batch_size: int,
    seed: int,
    budget_bytes: int,
    steps: Steps,
) -> list[_Patches]:
    count = len(frames)
    numbers = [list(range(at, min(at + batch_size, count))) for at in range(0, count, batch_size)]
    scales: list[_Patches] = []
    with steps.step(f"Embedding {count} pictures", count) as advance:
        for batch, pixels in zip(numbers, frames.batches(numbers), strict=True):
            features = [layer.float() for layer in features_of(pixels)]
            _check_finite(features, frames, batch)
            scales = scales or _room(features, count, budget_bytes)
            for at, (scale, layer) in enumerate(zip(scales, features, strict=True)):
                _keep(scale, layer, batch, len(scale.rows) // count, seed, at)
            advance(batch[-1] + 1)
    return scales


def _room(features: list[Tensor], count: int, budget_bytes: int) -> list[_Patches]:
    shapes = [tuple(layer.shape[1:]) for layer in features]
    widths = [min(channels, PROJECTED_DIMENSION) for channels, _, _ in shapes]
    needed = sum(
        height * width * ((channels + projected) * _FLOAT_BYTES + _PER_ROW_BYTES)
        for (channels, height, width), projected in zip(shapes, widths, strict=True)
    )
    share = min(1.0, MEMORY_SHARE * budget_bytes / (count * needed))
    scales = []
    for (channels, height, width), projected in zip(shapes, widths, strict=True):
        rows = count * max(1, int(share * height * width))
        scales.append(
            _Patches(
                rows=torch.empty(rows, channels),
                projections=torch.empty(rows, projected, device=features[0].device),
                all=count * height * width,
            )
        )
    return scales


def _keep(scale: _Patches, layer: Tensor, batch: list[int], kept: int, seed: int, at: int) -> None:
    """Store ``kept`` patches of each picture of a batch ``[B, C, h, w]``."""
    rows = layer.flatten(2).transpose(1, 2)
    matrix = random_projection(rows.shape[2], seed)
    matrix = None if matrix is None else matrix.to(rows.device)
    for picture, patches in zip(batch, rows, strict=True):
        if kept < len(patches):
            generator = torch.Generator().manual_seed(derived_seed(seed, "patches", picture, at))
            chosen = torch.randperm(len(patches), generator=generator)[:kept]
            patches = patches[chosen.to(patches.device)]
        part = slice(picture * kept, (picture + 1) * kept)
        scale.rows[part] = patches.cpu()
        scale.projections[part] = patches if matrix is None else patches @ matrix


def _check_finite(features: list[Tensor], frames: TrainingFrames, batch: list[int]) -> None:
    finite = torch.stack([layer.isfinite().flatten(1).all(1) for layer in features]).all(0).tolist()
    if not all(finite):
        path = frames.paths[batch[finite.index(False)]]
        raise DataError(
            f"the teacher gives NaN or infinite features for {path}. Its weights are damaged, or "
            "do not fit it: give others with --weights"
        )
