"""Ranges of activations against slow counterparts in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchline.calibration.activations import (
    BINS,
    LEVELS,
    AbsoluteHistogram,
    check_method,
    limit_of,
)
from patchline.runtime.errors import ConfigurationError

Values = npt.NDArray[np.float32]


def histogram_of(*parts: Values) -> AbsoluteHistogram:
    histogram = AbsoluteHistogram()
    for part in parts:
        histogram.add(part)
    return histogram


def values_of(kind: str) -> Values:
    rng = np.random.default_rng(3)
    drawn = {
        "normal": rng.normal(size=(4, 5, 50, 20)),
        "relu": np.maximum(rng.normal(size=20_000), 0),
        "heavy tail": rng.standard_t(2, size=20_000),
        "one outlier": np.append(rng.normal(size=20_000), 500.0),
        "spike at the end": np.append(rng.uniform(0, 1, 9_000), np.full(9_000, 1.5)),
        "small": 1e-9 * rng.normal(size=20_000),
        "large": 1e9 * rng.normal(size=20_000),
        "few": np.array([0.0, -0.25, 3.0]),
        "one value": np.full(50, -0.7),
    }
    return drawn[kind].astype(np.float32)


KINDS = (
    "normal",
    "relu",
    "heavy tail",
    "one outlier",
    "spike at the end",
    "small",
    "large",
    "few",
    "one value",
)


def naive_counts(values: Values) -> tuple[list[int], float]:
    """Bins of the smallest power of two above the largest value, by a loop over the values."""
    magnitudes = [abs(float(value)) for value in values.ravel()]
    top = 1.0
    while top <= max(magnitudes):
        top *= 2
    while top / 2 > max(magnitudes):
        top /= 2
    width = top / BINS
    counts = [0] * (math.floor(max(magnitudes) / width) + 1)
    for value in magnitudes:
        counts[math.floor(value / width)] += 1
    return counts, width


def naive_entropy_limit(values: Values) -> float:
    """The method as Migacz's slides tell it, one bin after the other; zeros are not counted."""
    counts, width = naive_counts(values)
    counts[0] = 0
    best = len(counts), math.inf
    for kept in range(LEVELS, len(counts) + 1):
        reference = [float(count) for count in counts[:kept]]
        if not sum(reference):
            continue
        last = max(i for i in range(kept) if counts[i])
        reference[last] += sum(counts[kept:])
        quantized = [0.0] * kept
        for level in range(LEVELS):
            first, end = (-(-at * kept // LEVELS) for at in (level, level + 1))
            bins = [i for i in range(first, end) if counts[i]]
            for i in bins:
                quantized[i] = sum(counts[j] for j in bins) / len(bins)
        divergence = float(stats.entropy(reference, quantized))
        if divergence < best[1]:
            best = kept, divergence
    return min(best[0] * width, float(np.abs(values).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_a_loop(kind: str) -> None:
    values = values_of(kind)
    counts, width = naive_counts(values)
    histogram = histogram_of(values)
    assert histogram.counts().tolist() == counts
    assert histogram.width == width
    assert histogram.largest == float(np.abs(values.astype(np.float64)).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["rising", "falling", "as drawn"])
def test_parts_in_any_order_count_as_the_whole(kind: str, order: str) -> None:
    values = values_of(kind).ravel()
    if order != "as drawn":
        values = values[np.argsort(np.abs(values))][:: 1 if order == "rising" else -1]
    whole, parts = histogram_of(values), histogram_of(*np.array_split(values, 7))
    assert parts.counts().tolist() == whole.counts().tolist()
    assert parts.width == whole.width


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=9),
        min_size=1,
        max_size=6,
    )
)
def test_parts_count_as_the_whole_whatever_they_are(parts: list[list[float]]) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    whole, joined = histogram_of(np.concatenate(arrays)), histogram_of(*arrays)
    assert joined.counts().tolist() == whole.counts().tolist()
    assert joined.counts().sum() == sum(len(part) for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_clips_nothing(kind: str) -> None:
    values = values_of(kind)
    expected = float(np.abs(values.astype(np.float64)).max())
    assert limit_of(histogram_of(values), "minmax", 99.0) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [60.0, 99.0, 99.9, 99.999, 100.0])
def test_percentile_clips_that_share(kind: str, percentile: float) -> None:
    values = np.sort(np.abs(values_of(kind).astype(np.float64)).ravel())
    histogram = histogram_of(values_of(kind))
    limit = limit_of(histogram, "percentile", percentile)
    # The smallest of the values that at least this share does not pass, and up to a bin above it.
    exact = values[math.ceil(round(percentile / 100 * len(values), 6)) - 1]
    assert exact <= limit <= exact + histogram.width
    assert limit <= values[-1]


@pytest.mark.parametrize("kind", ["relu", "heavy tail", "one outlier", "spike at the end", "few"])
def test_entropy_is_that_of_the_slow_method(kind: str) -> None:
    values = values_of(kind)
    assert limit_of(histogram_of(values), "entropy", 99.0) == naive_entropy_limit(values)


def test_entropy_gives_up_a_lone_outlier() -> None:
    values = values_of("one outlier")
    limit = limit_of(histogram_of(values), "entropy", 99.0)
    assert limit < 100
    assert limit_of(histogram_of(values_of("one value")), "entropy", 99.0) == np.float32(0.7)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_zeros_have_no_range(method: str) -> None:
    histogram = histogram_of(np.zeros((2, 3), np.float32), np.zeros(4, np.float32))
    assert limit_of(histogram, method, 99.999) == 0  # type: ignore[arg-type]
    histogram.add(np.array([5.0], np.float32))
    assert histogram.counts()[0] == 10
    assert limit_of(histogram, method, 100.0) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        AbsoluteHistogram().add(np.array([1.0, value], np.float32))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'kl'.*minmax, entropy, percentile"):
        check_method("kl", 99.0)


@pytest.mark.parametrize("percentile", [0.0, 50.0, 100.1, math.nan, -1.0])
def test_a_percentile_that_cannot_be_is_refused(percentile: float) -> None:
    with pytest.raises(ConfigurationError, match=r"percentile is .*above 50"):
        check_method("percentile", percentile)
