"""Statistics of times, by trtexec's rules: one rank rule for every percentile, a middle median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from patchline.runtime.errors import ConfigurationError

UNSTEADY_PERCENT = 2.5
"""Times whose coefficient of variation is larger are said to be unsteady."""

_DIGITS = 4  # of milliseconds: a tenth of a microsecond


@dataclass(frozen=True)
class Summary:
    """What is said of many times, in milliseconds.

    Attributes:
        cv_percent: coefficient of variation, the standard deviation over the mean.
        runs: how many times there are.
    """

    min_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cv_percent: float
    runs: int

    @property
    def is_steady(self) -> bool:
        """Whether the times vary as little as those of a quiet machine do."""
        return self.cv_percent <= UNSTEADY_PERCENT


def summarize(samples_ms: Sequence[float]) -> Summary:
    """The statistics of times in milliseconds.

    Raises:
        ConfigurationError: there are none.
    """
    ordered = sorted(samples_ms)
    return Summary(
        min_ms=rounded(percentile(ordered, 0)),
        mean_ms=rounded(statistics.fmean(ordered)),
        median_ms=rounded(statistics.median(ordered)),
        p90_ms=rounded(percentile(ordered, 90)),
        p95_ms=rounded(percentile(ordered, 95)),
        p99_ms=rounded(percentile(ordered, 99)),
        max_ms=rounded(percentile(ordered, 100)),
        cv_percent=round(variation_percent(ordered), 2),
        runs=len(ordered),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank: the smallest value that ``percent`` % of all do not exceed.

    Never interpolated, so that it is a time that was measured: ``ordered[ceil(percent n / 100) -
    1]``, and the smallest for 0.

    Args:
        ordered: ascending.
        percent: 0 to 100, whole, so that no rounding moves the rank.

    Raises:
        ConfigurationError: there are no values, or no such percentile.
    """
    if not ordered or not 0 <= percent <= 100:
        raise ConfigurationError(
            f"percentile {percent} of {len(ordered)} values, expected 0 to 100 of at least one"
        )
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


def variation_percent(samples: Sequence[float]) -> float:
    """Standard deviation of all values (divided by n) over their mean, in percent; 0 for zeros."""
    mean = statistics.fmean(samples)
    return 100 * statistics.pstdev(samples, mean) / mean if mean else 0.0


def rounded(milliseconds: float) -> float:
    """As it is written."""
    return round(float(milliseconds), _DIGITS)
