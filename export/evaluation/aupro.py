"""Per-region overlap (PRO) and the area under its curve, exact over all thresholds.

Bergmann et al., "The MVTec anomaly detection dataset", IJCV 2021, section 5.2. A region is a
connected component of a mask, corners included. Every region counts alike, large or small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from patchline.export.evaluation.masks import Mask
from patchline.export.evaluation.pixel_counts import AnomalyMap, PixelCounts
from patchline.export.evaluation.result import Curve
from patchline.runtime.errors import ConfigurationError, DataError

FPR_LIMIT = 0.3
"""The share of defect-free pixels up to which the field integrates."""

_CORNERS_TOUCH = np.ones((3, 3), np.int64)


def check_fpr_limit(fpr_limit: float) -> None:
    """Refuse a limit outside (0, 1].

    Raises:
        ConfigurationError: it is.
    """
    if not 0 < fpr_limit <= 1:
        raise ConfigurationError(
            f"fpr_limit is {fpr_limit}, expected a share of pixels in (0, 1], such as {FPR_LIMIT}"
        )


def region_overlaps(
    defective: Sequence[tuple[AnomalyMap, Mask]], levels: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Sum over all regions of the share of a region that lies at each level.

    Args:
        defective: map and mask of every defective picture.
        levels: float32 ``[n]``, the distinct scores of their defective pixels, ascending.

    Returns:
        float64 ``[n]``; its sum is the number of regions.
    """
    overlaps = np.zeros(len(levels))
    for anomaly_map, mask in defective:
        regions = ndimage.label(mask, _CORNERS_TOUCH)[0][mask]
        share = 1 / np.bincount(regions)[regions]
        at = np.searchsorted(levels, anomaly_map[mask])
        overlaps += np.bincount(at, share, minlength=len(levels))
    return overlaps


def pro_curve(counts: PixelCounts, overlaps: npt.NDArray[np.float64]) -> Curve:
    """False-positive rate over defect-free pixels -> mean per-region overlap.

    Args:
        counts: the pixels of the whole test set.
        overlaps: float64 ``[n]`` from :func:`region_overlaps`, at the levels of ``counts``.

    Returns:
        The curve from (0, 0) to (1, 1); both coordinates ascend. Between two thresholds it is
        level, except that pixels of one and the same score move it along a straight line.

    Raises:
        DataError: every pixel is defective, so that there is no false-positive rate.
    """
    if not counts.defect_free.any():
        raise DataError("every pixel of the test set is marked defective: AUPRO is not defined")
    gained = np.zeros(len(counts.defect_free))
    gained[1::2] = overlaps
    false = np.cumsum(counts.defect_free[::-1], dtype=np.float64)
    overlap = np.cumsum(gained[::-1])
    return Curve(np.append(0.0, false / false[-1]), np.append(0.0, overlap / overlap[-1]))


def aupro(curve: Curve, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under a PRO curve up to ``fpr_limit``, divided by it: 0 to 1.

    Trapezoids; at the limit the curve is interpolated linearly.

    Raises:
        ConfigurationError: ``fpr_limit`` is outside (0, 1].
    """
    check_fpr_limit(fpr_limit)
    inside = int(np.searchsorted(curve.x, fpr_limit, side="right"))
    x, y = curve.x[:inside], curve.y[:inside]
    if inside < len(curve.x):
        ahead = (fpr_limit - x[-1]) / (curve.x[inside] - x[-1])
        y = np.append(y, y[-1] + ahead * (curve.y[inside] - y[-1]))
        x = np.append(x, fpr_limit)
    area = float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)
    return min(area / fpr_limit, 1.0)  # rounding alone can pass 1
