"""All pixels of a test set as counts per score, exact and in the memory of the defective ones.

Every pixel curve (ROC, precision-recall, PRO) bends only at scores of defective pixels. Of a
defect-free pixel it matters which of these scores it ties with, or between which two it lies. So
the defective pictures are judged first; after that each good one is counted and dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchline.export.evaluation.masks import Mask
from patchline.export.evaluation.ranking import Ranking, rank
from patchline.runtime.errors import DataError

AnomalyMap = npt.NDArray[np.float32]
"""float32 ``[H, W]``, finite."""


@dataclass(frozen=True)
class PixelCounts:
    """The pixels of a test set by score.

    Attributes:
        levels: float32 ``[n]``, the distinct scores of defective pixels, ascending, n >= 1.
        defective: int64 ``[n]``, defective pixels at each level, at least 1.
        defect_free: int64 ``[2n + 1]``: ``2i + 1`` holds the defect-free pixels at level i,
            ``2i`` those strictly between level i - 1 and level i (beyond the ends: unbounded).
    """

    levels: npt.NDArray[np.float32]
    defective: npt.NDArray[np.int64]
    defect_free: npt.NDArray[np.int64]


def count_pixels(
    defective: Sequence[tuple[AnomalyMap, Mask]], good: Iterable[AnomalyMap]
) -> PixelCounts:
    """Count the pixels of a test set.

    Args:
        defective: map and mask of every defective picture, each pair of one shape ``[H, W]``.
        good: maps of the good pictures; each is let go before the next is asked for.

    Raises:
        DataError: no pixel is defective, a mask has another shape than its map, or a map holds
            NaN or infinity.
    """
    for anomaly_map, mask in defective:
        _check(anomaly_map, mask)
    scores = [anomaly_map[mask] for anomaly_map, mask in defective]
    if not sum(map(len, scores)):
        raise DataError("no pixel of the test set is marked defective. Expected masks that do")
    levels, counts = np.unique(np.concatenate(scores), return_counts=True)
    defect_free = np.zeros(2 * len(levels) + 1, np.int64)
    for anomaly_map, mask in defective:
        _add(defect_free, levels, anomaly_map[~mask])
    for anomaly_map in good:
        _check(anomaly_map, None)
        _add(defect_free, levels, anomaly_map.ravel())
    return PixelCounts(levels, counts.astype(np.int64), defect_free)


def pixel_ranking(counts: PixelCounts) -> Ranking:
    """Evaluate pixel scores: the same figures as over the single pixels.

    Raises:
        DataError: the metrics are not defined: every pixel is defective, or all scores are
            identical.
    """
    _check_defined(counts)
    # Places instead of scores: between two neighbouring floats there is no third for the gap.
    # Small types and no empty gaps: scikit-learn makes some ten arrays of this length.
    occupied = np.flatnonzero(counts.defect_free).astype(np.int32)
    places = np.arange(1, len(counts.defect_free), 2, dtype=np.int32)
    place = np.concatenate([places, occupied])
    weight = np.concatenate([counts.defective, counts.defect_free[occupied]]).astype(np.float64)
    is_defective = np.zeros(len(place), bool)
    is_defective[: len(places)] = True
    del places, occupied
    return rank(is_defective, place, weight)


def _check_defined(counts: PixelCounts) -> None:
    total = int(counts.defect_free.sum())
    if total == 0:
        raise DataError(
            "every pixel of the test set is marked defective, so pixel metrics are not defined. "
            "Expected masks that mark the defect alone, or good pictures beside them"
        )
    if len(counts.levels) == 1 and counts.defect_free[1] == total:
        raise DataError(
            f"all {total + int(counts.defective[0])} pixel scores are identical "
            f"({counts.levels[0]:g}): they rank nothing, so pixel metrics are not given. The model "
            "tells no place from another: export it again"
        )


def _add(
    defect_free: npt.NDArray[np.int64],
    levels: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
) -> None:
    scores = np.sort(scores)  # neighbours in score are found in the same cache lines
    above = np.searchsorted(levels, scores)
    ties = levels[np.minimum(above, len(levels) - 1)] == scores
    defect_free += np.bincount(2 * above + ties, minlength=len(defect_free))


def _check(anomaly_map: AnomalyMap, mask: Mask | None) -> None:
    if mask is not None and mask.shape != anomaly_map.shape:
        raise DataError(f"the mask is {mask.shape}, its anomaly map {anomaly_map.shape}")
    if not np.isfinite(anomaly_map).all():
        raise DataError("an anomaly map holds NaN or infinite values")
