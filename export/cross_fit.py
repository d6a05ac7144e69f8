"""Scores of good images against banks that have not seen them (five folds pooled).

Each fold's images are judged by a bank from the other folds. The same held-out patches give the
frozen statistics of the mean distance (DESIGN section 3). Cross-fitting is a little conservative:
the bank that ships is larger than each fold's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchline.calibration.folds import assign_folds
from patchline.calibration.threshold import Scores
from patchline.export.coreset import coreset_size, greedy_coreset
from patchline.export.detector import AnomalyHead
from patchline.export.features import TrainingFeatures
from patchline.export.progress import Steps
from patchline.runtime.contract import DistanceStatistics, ModelSize


@dataclass(frozen=True)
class HeadSettings:
    """What every head of one fit shares.

    Attributes:
        grid: height and width of the patch grid.
        size: height and width of the frames in pixels.
        score: name of the score.
        neighbors: k.
        coreset_ratio: share of the rows in a bank.
        seed: of coreset and folds.
        device: where to compute.
    """

    grid: tuple[int, int]
    size: ModelSize
    score: str
    neighbors: int
    coreset_ratio: float
    seed: int
    device: torch.device

    def head(self, memory_bank: Tensor, statistics: DistanceStatistics) -> AnomalyHead:
        """A head over a bank ``[M, D]``."""
        head = AnomalyHead(
            memory_bank,
            statistics,
            self.grid,
            self.size,
            score=self.score,
            neighbors=self.neighbors,
        )
        return head.to(self.device)


@dataclass(frozen=True)
class HeldOut:
    """What held-out good images tell.

    Attributes:
        statistics: of the mean distance of their patches.
        image_scores: float64 ``[N]``.
        map_maxima: float64 ``[N]``, largest value of each anomaly map.
    """

    statistics: DistanceStatistics
    image_scores: Scores
    map_maxima: Scores


@dataclass(frozen=True)
class _Fold:
    bank_rows: Tensor
    images: list[int]


_UNKNOWN = DistanceStatistics(mean=0.0, std=1.0)


@torch.inference_mode()
def cross_fit(features: TrainingFeatures, settings: HeadSettings, steps: Steps) -> HeldOut:
    """Judge every image by a bank that has not seen it.

    Raises:
        DataError: fewer than two images.
    """
    folds = _pick_banks(features, settings, steps)
    statistics, nearest = _measure(features, folds, settings, steps)
    image_scores = np.empty(len(features.paths))
    map_maxima = np.empty(len(features.paths))
    with steps.step("Scoring held-out images", len(features.paths)) as advance:
        done = 0
        for fold in folds:
            head = settings.head(features.rows.gather(fold.bank_rows), statistics)
            for image, embeddings in _held_out(features, fold, settings):
                indices = nearest[image].to(settings.device, torch.int64)
                score, anomaly_map, _ = head.judge(embeddings.view(1, *settings.grid, -1), indices)
                image_scores[image] = float(score[0])
                map_maxima[image] = float(anomaly_map.max())
                done += 1
                advance(done)
    return HeldOut(statistics, image_scores, map_maxima)


def _pick_banks(features: TrainingFeatures, settings: HeadSettings, steps: Steps) -> list[_Fold]:
    assigned = assign_folds(len(features.paths), settings.seed)
    folds = []
    with steps.step("Choosing held-out banks", int(assigned.max()) + 1) as advance:
        for fold in range(int(assigned.max()) + 1):
            held_out = torch.from_numpy(assigned == fold).repeat_interleave(features.patches)
            size = coreset_size(int((~held_out).sum()), settings.coreset_ratio)
            picked = greedy_coreset(
                features.projections, size, seed=settings.seed, excluded=held_out
            )
            folds.append(_Fold(picked.indices, np.flatnonzero(assigned == fold).tolist()))
            advance(fold + 1)
    return folds


def _measure(
    features: TrainingFeatures, folds: list[_Fold], settings: HeadSettings, steps: Steps
) -> tuple[DistanceStatistics, list[Tensor]]:
    """Statistics of the mean distance, and per image its neighbours, int32 ``[P, k]``."""
    found: dict[int, Tensor] = {}
    means = np.empty((len(features.paths), features.patches), np.float32)
    with steps.step("Searching held-out neighbours", len(features.paths)) as advance:
        for fold in folds:
            head = settings.head(features.rows.gather(fold.bank_rows), _UNKNOWN)
            for image, embeddings in _held_out(features, fold, settings):
                indices = head.search(embeddings)
                means[image] = head.influence(embeddings, indices).mean_distance.cpu().numpy()
                found[image] = indices.to("cpu", torch.int32)
                advance(len(found))
    values = means.astype(np.float64)
    statistics = DistanceStatistics(mean=float(values.mean()), std=float(values.std()))
    return statistics, [found[image] for image in range(len(found))]


def _held_out(
    features: TrainingFeatures, fold: _Fold, settings: HeadSettings
) -> Iterator[tuple[int, Tensor]]:
    for image in fold.images:
        yield image, features.images(image, image + 1).to(settings.device)
