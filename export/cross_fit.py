"""Scores of good images against banks that have not seen them.

Cross-fitting: five folds, each judged by a bank from the other folds, pooled. The same held-out
patches give the frozen statistics of the mean distance (DESIGN section 3). It is a little
conservative, because the bank that ships is larger than each fold's. With a calibration split the
folds give the statistics only, and the scores come from images that never enter the bank, judged
by the bank that ships: exchangeable with what the camera will see, at the price of those images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchline.calibration.folds import assign_folds
from patchline.calibration.threshold import Scores
from patchline.export.coreset import Coreset, coreset_size, greedy_coreset
from patchline.export.coreset_sharded import Sharding, sharded_coreset
from patchline.export.detector import AnomalyHead
from patchline.export.features import TrainingFeatures
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import DataError
from patchline.runtime.progress import Advance, Steps

Images = npt.NDArray[np.bool_]
"""Which of the N images are meant, bool ``[N]``."""


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
        represented_rows: rows that the inherited ones of an extended bank were chosen from.
        sharding: how coresets are chosen in shards; ``None`` for the exact greedy.
    """

    grid: tuple[int, int]
    size: ModelSize
    score: str
    neighbors: int
    coreset_ratio: float
    seed: int
    device: torch.device
    represented_rows: int = 0
    sharding: Sharding | None = None

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

    def bank_rows(self, images: int, patches: int) -> int:
        """Rows of a bank from so many images (and the inherited rows)."""
        return coreset_size(self.represented_rows + images * patches, self.coreset_ratio)


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
class Fold:
    """Images, and a bank that has seen none of them.

    Attributes:
        bank_rows: int64 ``[M]``, rows of the features.
        images: numbers of the held-out images.
    """

    bank_rows: Tensor
    images: list[int]


@dataclass(frozen=True)
class _Measured:
    """Per image in the folds: its neighbours, int32 ``[P, k]``, and the statistics of all."""

    nearest: dict[int, Tensor]
    statistics: DistanceStatistics


_UNKNOWN = DistanceStatistics(mean=0.0, std=1.0)


def choose_bank(
    features: TrainingFeatures,
    images: Images,
    settings: HeadSettings,
    advance: Advance | None = None,
) -> Coreset:
    """The coreset of some images, after the inherited rows where there are any.

    Raises:
        ConfigurationError: it is chosen in shards, and a cover finds no room.
    """
    size = max(settings.bank_rows(int(images.sum()), features.patches), features.inherited)
    if settings.sharding is not None:
        return sharded_coreset(
            features.projected,
            features.candidates(images),
            size,
            settings.sharding,
            seed=settings.seed,
            start=features.inherited,
            on_progress=advance,
        )
    return greedy_coreset(
        features.projections,
        size,
        seed=settings.seed,
        excluded=~features.candidates(images),
        start=features.inherited,
        on_progress=advance,
    )


@torch.inference_mode()
def cross_fit(
    features: TrainingFeatures,
    settings: HeadSettings,
    steps: Steps,
    *,
    images: Images | None = None,
    statistics: DistanceStatistics | None = None,
) -> HeldOut:
    """Judge every image by a bank that has not seen it.

    Args:
        features: of the images.
        settings: of the heads.
        steps: shows progress.
        images: the N images meant; all by default.
        statistics: where they are known already (a bank that is extended).

    Raises:
        DataError: fewer than two images.
    """
    images = np.ones(len(features.paths), np.bool_) if images is None else images
    folds = held_out_banks(features, images, settings, steps)
    measured = _measure(features, folds, settings, steps)
    statistics = statistics or measured.statistics
    found = {}
    with steps.step("Scoring held-out images", int(images.sum())) as advance:
        for fold in folds:
            head = settings.head(features.rows.gather(fold.bank_rows), statistics)
            for image, embeddings in _embeddings(features, fold.images, settings):
                indices = measured.nearest[image].to(settings.device, torch.int64)
                found[image] = _judge(head, embeddings, indices, features.paths[image])
                advance(len(found))
    scores, maxima = np.array([found[image] for image in sorted(found)]).T
    return HeldOut(statistics, scores, maxima)


@torch.inference_mode()
def held_out_statistics(
    features: TrainingFeatures, images: Images, settings: HeadSettings, steps: Steps
) -> DistanceStatistics:
    """Statistics of the mean distance by cross-fitting some of the images.

    Raises:
        DataError: fewer than two images.
    """
    folds = held_out_banks(features, images, settings, steps)
    return _measure(features, folds, settings, steps).statistics


@torch.inference_mode()
def judge_images(
    features: TrainingFeatures,
    images: Images,
    head: AnomalyHead,
    settings: HeadSettings,
    steps: Steps,
) -> tuple[Scores, Scores]:
    """Image scores and map maxima of images, by one head that has not seen them."""
    judged = []
    with steps.step("Scoring held-out images", int(images.sum())) as advance:
        for image, embeddings in _embeddings(features, np.flatnonzero(images).tolist(), settings):
            indices = head.search(embeddings)
            judged.append(_judge(head, embeddings, indices, features.paths[image]))
            advance(len(judged))
    scores, maxima = np.array(judged).T
    return scores, maxima


def _judge(
    head: AnomalyHead, embeddings: Tensor, indices: Tensor, path: Path
) -> tuple[float, float]:
    """Image score and largest value of the map for one image ``[P, D]``."""
    score, anomaly_map, _ = head.judge(embeddings.view(1, *head.grid, -1), indices)
    found = float(score[0]), float(anomaly_map.max())
    if not np.isfinite(found).all():
        raise DataError(f"the held-out score of {path} is {found[0]}, expected a finite number")
    return found


def held_out_banks(
    features: TrainingFeatures, images: Images, settings: HeadSettings, steps: Steps
) -> list[Fold]:
    """Five folds of some images, each with a bank of the others.

    Raises:
        DataError: fewer than two images, and no inherited rows.
    """
    numbers = np.flatnonzero(images)
    if features.inherited and len(numbers) == 1:  # the inherited bank has not seen it
        assigned = np.zeros(1, np.int64)
    else:
        assigned = assign_folds(len(numbers), settings.seed)
    folds = []
    with steps.step("Choosing held-out banks", int(assigned.max()) + 1) as advance:
        for fold in range(int(assigned.max()) + 1):
            used = images.copy()
            used[numbers[assigned == fold]] = False
            picked = choose_bank(features, used, settings)
            folds.append(Fold(picked.indices, numbers[assigned == fold].tolist()))
            advance(fold + 1)
    return folds


def _measure(
    features: TrainingFeatures, folds: list[Fold], settings: HeadSettings, steps: Steps
) -> _Measured:
    nearest: dict[int, Tensor] = {}
    means: dict[int, npt.NDArray[np.float32]] = {}
    with steps.step("Searching held-out neighbours", sum(len(f.images) for f in folds)) as advance:
        for fold in folds:
            head = settings.head(features.rows.gather(fold.bank_rows), _UNKNOWN)
            for image, embeddings in _embeddings(features, fold.images, settings):
                indices = head.search(embeddings)
                means[image] = head.influence(embeddings, indices).mean_distance.cpu().numpy()
                nearest[image] = indices.to("cpu", torch.int32)
                advance(len(nearest))
    values = np.stack([means[image] for image in sorted(means)]).astype(np.float64)
    statistics = DistanceStatistics(mean=float(values.mean()), std=float(values.std()))
    return _Measured(nearest, statistics)


def _embeddings(
    features: TrainingFeatures, images: Iterable[int], settings: HeadSettings
) -> Iterator[tuple[int, Tensor]]:
    for image in images:
        yield image, features.images(image, image + 1).to(settings.device)
