"""Statistics of times, each against an independent reference."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.benchmark.stats import percentile, summarize, variation_percent
from patchline.runtime.errors import ConfigurationError

TIMES = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=200)


class TestPercentile:
    @pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 19, 20, 99, 100, 101, 333, 1000])
    @pytest.mark.parametrize("percent", [0, 1, 25, 50, 75, 90, 95, 99, 100])
    def test_against_numpys_inverted_cdf(self, count: int, percent: int) -> None:
        values = np.sort(np.random.default_rng(count).gamma(2, 3, count))
        expected = np.percentile(values, percent, method="inverted_cdf")
        assert percentile(values.tolist(), percent) == expected

    @given(values=TIMES, percent=st.integers(0, 100))
    def test_it_is_the_smallest_that_so_many_do_not_exceed(
        self, values: list[float], percent: int
    ) -> None:
        wanted = Fraction(percent, 100)
        enough = [
            value
            for value in values
            if Fraction(sum(other <= value for other in values), len(values)) >= wanted
        ]
        assert percentile(sorted(values), percent) == min(enough)

    @given(values=TIMES, percent=st.integers(0, 100))
    def test_trtexecs_own_way_of_counting(self, values: list[float], percent: int) -> None:
        """It leaves out ``floor((1 - p) n)`` values at the top and takes the next."""
        left_out = math.floor((1 - Fraction(percent, 100)) * len(values))
        expected = sorted(values)[max(len(values) - 1 - left_out, 0)]
        assert percentile(sorted(values), percent) == expected

    @pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101), ([], 0)])
    def test_refuses_what_has_none(self, values: list[float], percent: int) -> None:
        with pytest.raises(ConfigurationError, match=f"percentile {percent} of {len(values)}"):
            percentile(values, percent)


class TestVariation:
    @given(values=TIMES)
    def test_against_numpy(self, values: list[float]) -> None:
        expected = 100 * np.std(values) / np.mean(values)
        assert variation_percent(values) == pytest.approx(expected, abs=1e-6)

    def test_times_of_a_clock_that_stands_still(self) -> None:
        assert variation_percent([0.0, 0.0]) == 0.0


class TestSummary:
    @given(values=TIMES)
    def test_against_the_standard_library(self, values: list[float]) -> None:
        found = summarize(values)
        assert found.min_ms == pytest.approx(min(values), abs=1e-4)
        assert found.max_ms == pytest.approx(max(values), abs=1e-4)
        assert found.mean_ms == pytest.approx(statistics.mean(values), abs=1e-4, rel=1e-9)
        assert found.median_ms == pytest.approx(np.median(values), abs=1e-4)
        assert found.cv_percent == pytest.approx(
            100 * statistics.pstdev(values) / statistics.mean(values), abs=0.006
        )
        assert found.runs == len(values)

    def test_percentiles_of_a_known_series_in_any_order(self) -> None:
        values = [float(value) for value in np.random.default_rng(0).permutation(200) + 1]
        found = summarize(values)
        assert (found.p90_ms, found.p95_ms, found.p99_ms) == (180.0, 190.0, 198.0)
        assert (found.min_ms, found.median_ms, found.max_ms) == (1.0, 100.5, 200.0)

    @pytest.mark.parametrize(
        ("values", "is_steady"), [([100.0, 105.0], True), ([100.0, 105.3], False), ([7.0], True)]
    )
    def test_steady_up_to_two_and_a_half_percent(
        self, values: list[float], is_steady: bool
    ) -> None:
        assert summarize(values).is_steady is is_steady

    def test_refuses_no_times(self) -> None:
        with pytest.raises(ConfigurationError, match="of 0 values"):
            summarize([])
