"""A threshold for a converted model, whose score scale moved (issue: FP16 and INT8).

The promise of a false-alarm rate rests on the normal scores of the fit (cross-fitted, or of
pictures kept out of the bank). They are not measured again: a robust line through the scores that
both models give the same pictures carries them over, and the rule is applied to them as ever. What
the conversion scatters about that line makes good pictures' scores wider, so the line is made
steeper by as much: otherwise more of them would reach the threshold than it promises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from patchline.calibration.threshold import normal_scores, threshold_of_fit
from patchline.export.precision.compare import Pairs
from patchline.runtime.contract import Manifest, NormalScores

_Values = npt.NDArray[np.float64]

LEAST_FOR_LINE = 10
"""Pairs below which only a factor is found: two parameters would follow single pictures."""


@dataclass(frozen=True)
class Line:
    """``slope * score + intercept``; the slope is positive."""

    slope: float
    intercept: float

    def __call__(self, values: _Values) -> _Values:
        """Carry values over."""
        return self.slope * values + self.intercept


def robust_line(before: _Values, after: _Values) -> Line:
    """The line of Theil and Sen through pairs: the median of all slopes between two of them.

    A line that would fall, or fewer than :data:`LEAST_FOR_LINE` pairs, give the median factor
    instead, and scores of 0 the median difference.

    Args:
        before: float64 ``[N]``, N >= 1, finite.
        after: float64 ``[N]``, finite.
    """
    if len(before) >= LEAST_FOR_LINE and np.ptp(before) > 0:
        slope, intercept = (float(value) for value in stats.theilslopes(after, before)[:2])
        if slope > 0:
            return Line(slope, intercept)
    if (before > 0).all() and (after > 0).all():
        return Line(float(np.median(after / before)), 0.0)
    return Line(1.0, float(np.median(after - before)))


def carrying_line(before: _Values, after: _Values) -> Line:
    """The robust line, steeper by the scatter about it: it carries over the spread as well.

    Variances add, so the slope becomes ``sqrt(slope^2 + (scatter / spread)^2)`` about the median,
    both measured as median absolute deviations.

    Args:
        before: float64 ``[N]``, N >= 1, finite.
        after: float64 ``[N]``, finite.
    """
    line = robust_line(before, after)
    spread = stats.median_abs_deviation(before)
    if len(before) < LEAST_FOR_LINE or spread == 0:
        return line
    scatter = stats.median_abs_deviation(after - line(before))
    slope = float(np.hypot(line.slope, scatter / spread))
    middle = float(np.median(before))
    return Line(slope, line.slope * middle + line.intercept - slope * middle)


def carry_over(normal: NormalScores, scores: Line, map_maxima: Line) -> NormalScores:
    """The normal scores on the converted model's scale; where they came from stays, and is said."""
    carried = normal_scores(
        scores(np.array(normal.scores)), map_maxima(np.array(normal.map_maxima)), normal.source
    )
    return carried.model_copy(update={"carried_over": True})


def with_threshold(manifest: Manifest, pairs: Pairs, false_alarm_rate: float) -> Manifest:
    """The manifest with its normal scores carried to the converted model's scale.

    Raises:
        DataError: as for :func:`patchline.calibration.threshold.threshold_of_fit`.
    """
    scores = carrying_line(*pairs.scores.T)
    normal = carry_over(manifest.normal_scores, scores, carrying_line(*pairs.map_maxima.T))
    threshold = threshold_of_fit(normal, false_alarm_rate)
    labelled = manifest.threshold.f1_max
    if labelled is not None:
        value = float(scores(np.array(labelled.value)))
        labelled = labelled.model_copy(update={"value": value})
    threshold = threshold.model_copy(update={"f1_max": labelled})
    return manifest.model_copy(update={"normal_scores": normal, "threshold": threshold})
