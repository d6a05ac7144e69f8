"""From all values of one activation to the largest that INT8 represents.

Min-max, percentile, and the entropy method of Migacz, "8-bit inference with TensorRT" (GTC 2017).
Scales are symmetric (DESIGN section 5), so that absolute values are all that is looked at.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import ConfigurationError

RangeMethod = Literal["minmax", "entropy", "percentile"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("minmax", "entropy", "percentile")

PERCENTILE = 99.999
"""Of the absolute values, where no other is asked for."""

BINS = 2048
LEVELS = 128
"""Magnitudes that a symmetric INT8 number has."""

_SMALLEST_EXPONENT = -60
Counts = npt.NDArray[np.int64]


class AbsoluteHistogram:
    """Counts of absolute values, in memory that does not grow with their number.

    The bins reach to a power of two above the largest value. When a larger one comes, pairs of
    bins are joined until it fits, which is exact: the result does not depend on the order.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._exponent = _SMALLEST_EXPONENT
        self._counts: Counts = np.zeros(BINS, np.int64)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the absolute values of an array of any shape.

        Raises:
            ValueError: one of them is NaN or infinite.
        """
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError("the values to count must be finite")
        self.largest = max(self.largest, largest)
        self._widen(math.frexp(largest)[1] if largest else _SMALLEST_EXPONENT)
        # A power of two: neither the product nor the nesting of the bins is ever rounded.
        at = (magnitudes * np.float32(BINS * 2.0**-self._exponent)).astype(np.int32)
        self._counts += np.bincount(at, minlength=BINS)

    @property
    def width(self) -> float:
        """Of one bin."""
        return math.ldexp(1.0, self._exponent) / BINS

    def counts(self) -> Counts:
        """int64 ``[n]``, ``n`` at most :data:`BINS`: from 0 to the bin of the largest value."""
        used = min(int(self.largest / self.width) + 1, BINS)
        counts: Counts = self._counts[:used].copy()
        return counts

    def _widen(self, exponent: int) -> None:
        while self._exponent < exponent:
            joined = self._counts.reshape(-1, 2).sum(1)
            if self._counts[1:].any():
                self._exponent += 1
            else:  # nothing but values in the first bin, which stays the first
                self._exponent = exponent
            self._counts = np.concatenate([joined, np.zeros(BINS - len(joined), np.int64)])


def check_method(method: str, percentile: float) -> None:
    """Refuse a method or percentile that cannot be.

    Raises:
        ConfigurationError: there is no such method, or the percentile is not in (50, 100].
    """
    if method not in RANGE_METHODS:
        raise ConfigurationError(
            f"there is no calibration method {method!r}. There are: {', '.join(RANGE_METHODS)}"
        )
    if not 50 < percentile <= 100:
        raise ConfigurationError(
            f"the calibration percentile is {percentile}, expected a number above 50 and up to 100"
        )


def limit_of(histogram: AbsoluteHistogram, method: RangeMethod, percentile: float) -> float:
    """The largest absolute value that is represented; what lies above is clipped.

    Args:
        histogram: of all values of one activation.
        method: ``minmax`` clips nothing, ``percentile`` the largest values by their share,
            ``entropy`` so many that the 128 levels lose the least information.
        percentile: share of values not clipped, in %; read by its method alone.

    Returns:
        At most the largest value; 0 where every value is 0.
    """
    if method == "minmax" or histogram.largest == 0:
        return histogram.largest
    counts = histogram.counts()
    kept = _kept_share(counts, percentile) if method == "percentile" else _kept_entropy(counts)
    return min(kept * histogram.width, histogram.largest)


def _kept_share(counts: Counts, percentile: float) -> int:
    """The fewest bins that hold this share of the values."""
    reached = np.cumsum(counts)
    # Rounded: 99.9 % of 1,000 values is a little more than 999 in floating point.
    wanted = math.ceil(round(percentile / 100 * int(reached[-1]), 6))
    return int(np.searchsorted(reached, wanted)) + 1


def _kept_entropy(counts: Counts) -> int:
    """How many bins to keep so that the quantised distribution diverges least from the whole.

    Zeros are left out of the count: ReLU makes them most of the values, and every scale
    represents them exactly.
    """
    counts = counts.copy()
    counts[0] = 0
    if len(counts) <= LEVELS or not counts.any():
        return len(counts)
    beyond = counts.sum() - np.cumsum(counts)
    kept = range(LEVELS, len(counts) + 1)
    return kept[int(np.argmin([_divergence(counts[:n], int(beyond[n - 1])) for n in kept]))]


def _divergence(counts: Counts, clipped: int) -> float:
    """Kullback-Leibler, from the clipped distribution to its 128 levels; inf where all is clipped.

    What is clipped is counted with the last value that is not, where the paper takes the last bin:
    that one is empty below a lone outlier, which then could not be clipped.
    """
    filled = counts > 0
    if not filled.any():
        return math.inf
    level = np.arange(len(counts)) * LEVELS // len(counts)
    share = np.bincount(level, counts, LEVELS) / np.maximum(np.bincount(level, filled, LEVELS), 1)
    reference, quantized = counts.astype(np.float64), share[level] * filled
    reference[np.flatnonzero(filled)[-1]] += clipped
    p, q = (values[filled] / values.sum() for values in (reference, quantized))
    return float(p @ np.log(p / q))
