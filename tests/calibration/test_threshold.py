"""The threshold is the quantile it says it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats.mstats import mquantiles

from patchline.calibration.threshold import QUANTILE, normal_scores, quantile_threshold
from patchline.runtime.errors import DataError

Scores = npt.NDArray[np.float64]

score_arrays = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


def draw(count: int, seed: int) -> Scores:
    return np.random.default_rng(seed).gumbel(3, 1, count)


def by_hand(values: Scores, quantile: float) -> float:
    """Linear interpolation between the ordered values at (n - 1) q."""
    ordered = sorted(values.tolist())
    at = (len(ordered) - 1) * quantile
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


def test_scores_are_kept_in_ascending_order_with_mean_and_deviation() -> None:
    scores, maxima = draw(50, 0), draw(50, 1)
    before = scores.copy()
    normal = normal_scores(scores, maxima)
    assert list(normal.scores) == sorted(scores.tolist())
    assert list(normal.map_maxima) == sorted(maxima.tolist())
    assert normal.mean == pytest.approx(sum(scores) / 50, rel=1e-12)
    assert normal.std == pytest.approx(np.sqrt(sum((scores - scores.mean()) ** 2) / 50), rel=1e-12)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("count", [1, 2, 19, 200])
def test_the_threshold_is_the_quantile(count: int, quantile: float) -> None:
    scores, maxima = draw(count, 2), draw(count, 3)
    threshold = quantile_threshold(normal_scores(scores, maxima), quantile)
    assert threshold.value == pytest.approx(by_hand(scores, quantile), rel=1e-12)
    assert threshold.map_value == pytest.approx(by_hand(maxima, quantile), rel=1e-12)
    # scipy's name for the same interpolation: alphap = betap = 1.
    assert threshold.value == pytest.approx(
        float(mquantiles(scores, [quantile], alphap=1, betap=1)[0]), rel=1e-9
    )


def test_95_percent_unless_told_otherwise() -> None:
    assert QUANTILE == 0.95
    normal = normal_scores(draw(80, 4), draw(80, 5))
    threshold = quantile_threshold(normal)
    assert threshold == quantile_threshold(normal, 0.95)
    assert threshold.false_alarm_rate == 0.05
    assert threshold.rule == "95% quantile of cross-fitted scores of the good training images"


@pytest.mark.parametrize(
    ("quantile", "rate", "words"),
    [(0.99, 0.01, "99%"), (0.9, 0.1, "90%"), (0.999, 0.001, "99.9%"), (0.995, 0.005, "99.5%")],
)
def test_the_rule_and_the_rate_say_which_quantile(quantile: float, rate: float, words: str) -> None:
    threshold = quantile_threshold(normal_scores(draw(30, 6), draw(30, 7)), quantile)
    assert threshold.false_alarm_rate == rate
    assert threshold.rule.startswith(f"{words} quantile")


def test_about_as_many_good_frames_lie_above_it_as_it_says() -> None:
    scores = draw(1000, 8)
    threshold = quantile_threshold(normal_scores(scores, scores), 0.95)
    assert (scores >= threshold.value).mean() == pytest.approx(threshold.false_alarm_rate, abs=2e-3)


@settings(max_examples=80, deadline=None)
@given(score_arrays, st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_higher_quantile_is_never_a_lower_threshold(
    scores: Scores, one: float, other: float
) -> None:
    normal = normal_scores(scores, scores)
    low, high = sorted((one, other))
    lower, higher = quantile_threshold(normal, low), quantile_threshold(normal, high)
    slack = 1e-9 * float(np.abs(scores).max())  # of the interpolation
    assert lower.value <= higher.value + slack
    assert scores.min() - slack <= lower.value
    assert higher.value <= scores.max() + slack
    assert lower.false_alarm_rate >= higher.false_alarm_rate


@settings(max_examples=40, deadline=None)
@given(score_arrays, st.integers(0, 100))
def test_the_order_of_the_images_does_not_matter(scores: Scores, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(scores)
    one = quantile_threshold(normal_scores(scores, scores))
    other = quantile_threshold(normal_scores(shuffled, shuffled))
    assert one == other


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spoil", ["scores", "maxima"])
def test_scores_that_are_not_finite_are_refused(value: float, spoil: str) -> None:
    scores, maxima = draw(10, 9), draw(10, 10)
    (scores if spoil == "scores" else maxima)[4] = value
    with pytest.raises(DataError, match="must be finite"):
        normal_scores(scores, maxima)


def test_no_scores_are_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        normal_scores(np.array([]), np.array([1.0]))
    with pytest.raises(DataError, match="at least one"):
        normal_scores(np.array([1.0]), np.array([]))


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 1.5, np.nan])
def test_a_quantile_out_of_range_is_refused(quantile: float) -> None:
    normal = normal_scores(draw(10, 11), draw(10, 12))
    with pytest.raises(DataError, match="between 0 and 1"):
        quantile_threshold(normal, quantile)
