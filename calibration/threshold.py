"""The decision threshold, from scores of good images that the bank has not seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import NormalScores, Threshold
from patchline.runtime.errors import DataError

QUANTILE = 0.95

Scores = npt.NDArray[np.float64]


def normal_scores(image_scores: Scores, map_maxima: Scores) -> NormalScores:
    """Keep held-out scores ``[N]`` and map maxima ``[N]`` in ascending order, with mean and sd.

    Raises:
        DataError: there are none, or one is NaN or infinite.
    """
    for values in (image_scores, map_maxima):
        if len(values) == 0 or not np.isfinite(values).all():
            raise DataError("scores of good images must be finite, and at least one is needed")
    return NormalScores(
        scores=tuple(np.sort(image_scores).tolist()),
        map_maxima=tuple(np.sort(map_maxima).tolist()),
        mean=float(image_scores.mean()),
        std=float(image_scores.std()),
    )


def quantile_threshold(normal: NormalScores, quantile: float = QUANTILE) -> Threshold:
    """The quantile (linear interpolation) of held-out scores, and of held-out map maxima.

    Raises:
        DataError: the quantile is outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise DataError(f"the quantile is {quantile}, expected a number between 0 and 1")
    return Threshold(
        value=float(np.quantile(normal.scores, quantile)),
        map_value=float(np.quantile(normal.map_maxima, quantile)),
        rule=f"{100 * quantile:g}% quantile of cross-fitted scores of the good training images",
        false_alarm_rate=round(1 - quantile, 12),
    )
