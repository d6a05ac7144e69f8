"""What a fit does with its features: cross-fit, threshold, bank, as in ``export/fit.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchline.benchmarks.scaling.fit_point import NEIGHBORS, SEED, Clock, FitCase
from patchline.benchmarks.scaling.names import CROSS_FIT
from patchline.calibration.threshold import (
    DEFAULT_FALSE_ALARM_RATE,
    normal_scores,
    threshold_of_fit,
)
from patchline.export.cross_fit import HeadSettings, choose_bank, cross_fit
from patchline.export.features import TrainingFeatures
from patchline.export.row_store import RowStore
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime.contract import ModelSize
from patchline.runtime.progress import SilentSteps

_PX_PER_PATCH = 8


def judge_and_choose(rows: RowStore, projections: Tensor, case: FitCase, clock: Clock) -> None:
    """Find held-out scores, the threshold and the bank.

    Args:
        rows: float32 ``[N * P, D]``, image by image.
        projections: float32 ``[N * P, 128]``.
        case: with N and P.
        clock: told of ``cross-fit``, ``threshold`` and ``bank``.
    """
    paths = tuple(Path(f"{image}.png") for image in range(case.images))
    features = TrainingFeatures(rows, projections, paths, case.grid**2)
    shared = _settings(case)
    with clock.part(CROSS_FIT):
        held_out = cross_fit(features, shared, SilentSteps())
    with clock.part("threshold"):
        normal = normal_scores(held_out.image_scores, held_out.map_maxima, "cross-fit")
        threshold_of_fit(normal, DEFAULT_FALSE_ALARM_RATE)
    with clock.part("bank"):
        picked = choose_bank(features, np.ones(case.images, np.bool_), shared)
        shared.head(rows.gather(picked.indices), held_out.statistics)


def _settings(case: FitCase) -> HeadSettings:
    side = case.grid * _PX_PER_PATCH
    return HeadSettings(
        grid=(case.grid, case.grid),
        size=ModelSize(height=side, width=side),
        score=DEFAULT_SCORE,
        neighbors=NEIGHBORS,
        coreset_ratio=case.ratio,
        seed=SEED,
        device=torch.device("cpu"),
    )
