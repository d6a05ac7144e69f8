"""The decision threshold, from scores of good images that the bank has not seen."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from patchline.calibration.tail import NormalTail, is_constant
from patchline.runtime.contract import NormalScores, Threshold
from patchline.runtime.errors import DataError

DEFAULT_FALSE_ALARM_RATE = 0.05
SMALLEST_RATE, LARGEST_RATE = 1e-6, 0.5
"""What may be asked for: one in a million is a part a year, and half is no inspection."""

Scores = npt.NDArray[np.float64]
Source = Literal["cross-fit", "calibration-split", "mixed", "line"]

_SOURCES: dict[Source, str] = {
    "cross-fit": "cross-fitted scores of good pictures",
    "calibration-split": "scores of good pictures kept out of the fit",
    "mixed": "scores of good pictures, cross-fitted or kept out of the fit",
    "line": "scores of good pictures of the line",
}


def normal_scores(image_scores: Scores, map_maxima: Scores, source: Source) -> NormalScores:
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
        source=source,
    )


def derive_threshold(normal: NormalScores, false_alarm_rate: float) -> Threshold:
    """The threshold that the next good image reaches with probability ``false_alarm_rate``.

    It needs nothing but the scores that the manifest keeps, so that it can be derived again for
    another rate where the pictures are not at hand. See :mod:`patchline.calibration.tail`.

    Raises:
        DataError: the rate is outside (0, 1), or the scores are fewer than two or all the same.
    """
    images, maps = NormalTail(np.array(normal.scores)), NormalTail(np.array(normal.map_maxima))
    return Threshold(
        value=images.threshold(false_alarm_rate),
        map_value=maps.threshold(false_alarm_rate),
        rule=(
            f"expected false-alarm rate {100 * false_alarm_rate:g} %, {_origin(normal)} "
            "(generalised Pareto tail)"
        ),
        false_alarm_rate=false_alarm_rate,
        interval=images.interval(false_alarm_rate),
        supported_rate=images.supported_rate,
        supported_value=images.threshold(images.supported_rate),
        tail=images.fit(),
    )


def threshold_of_fit(normal: NormalScores, false_alarm_rate: float) -> Threshold:
    """As :func:`derive_threshold`; copies of one picture give a threshold just above their score.

    A model can be made from copies of one picture, and the rest of it is worth having; nothing is
    known of its false alarms, and :func:`caveat` says so.

    Raises:
        DataError: the rate is outside (0, 1), or there are fewer than two scores.
    """
    highest = normal.scores[-1], normal.map_maxima[-1]
    if len(normal.scores) < 2 or not all(map(is_constant, (normal.scores, normal.map_maxima))):
        return derive_threshold(normal, false_alarm_rate)
    value, map_value = (float(np.nextafter(np.float32(top), np.float32(np.inf))) for top in highest)
    return Threshold(
        value=value,
        map_value=map_value,
        rule=(
            f"just above the score of all {len(normal.scores)} good pictures"
            f"{', carried over from float32' if normal.carried_over else ''}: they all score the "
            "same, as copies of one picture do, and tell nothing of false alarms"
        ),
        false_alarm_rate=false_alarm_rate,
    )


def caveat(threshold: Threshold, images: int) -> str | None:
    """A sentence where less stands behind a threshold than its rate needs."""
    supported = threshold.supported_rate
    if supported is None and threshold.interval is None:
        return threshold.rule
    if supported is None or threshold.false_alarm_rate >= supported:
        return None
    needed = int(np.ceil(1 / threshold.false_alarm_rate)) - 1
    low, high = threshold.interval or (threshold.value, threshold.value)
    return (
        f"{images} good pictures support a false-alarm rate of {100 * supported:.3g} %, and "
        f"{100 * threshold.false_alarm_rate:.3g} % is asked: the threshold {threshold.value:.4g} "
        f"is extrapolated from their tail (95 % interval {low:.4g} to {high:.4g}), and defects "
        f"that score below it pass unseen. Use at least {needed:,} pictures, or ask for "
        f"--false-alarm-rate {_round_up(supported):g}{_supported_value(threshold)}"
    )


def _origin(normal: NormalScores) -> str:
    verb = "carried over from the float32 model's" if normal.carried_over else "from"
    return f"{verb} {len(normal.scores)} {_SOURCES[normal.source]}"


def _supported_value(threshold: Threshold) -> str:
    value = threshold.supported_value
    return "" if value is None else f", which needs a threshold of about {value:.4g}"


def _round_up(rate: float) -> float:
    """To two digits, upwards, so that the rate advised is one that is supported."""
    step = 10.0 ** (np.floor(np.log10(rate)) - 1)
    return float(np.ceil(rate / step - 1e-9) * step)
