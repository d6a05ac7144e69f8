"""Normal scores on a converted model's scale: the robust line, and what it carries over."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from patchline.calibration.threshold import normal_scores, threshold_of_fit
from patchline.export.precision.threshold import Line, carry_over, carrying_line, robust_line

RNG = np.random.default_rng(0)


def by_all_pairs(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Theil and Sen as they wrote it: the median slope, and the line through the medians."""
    slopes = [
        (after[j] - after[i]) / (before[j] - before[i])
        for i, j in itertools.combinations(range(len(before)), 2)
        if before[i] != before[j]
    ]
    slope = float(np.median(slopes))
    return slope, float(np.median(after) - slope * np.median(before))


@pytest.mark.parametrize("count", [10, 11, 60])
def test_the_line_is_that_of_all_pairs(count: int) -> None:
    before = RNG.gamma(20, 0.02, count)
    after = 1.03 * before - 0.004 + RNG.normal(0, 0.003, count)
    line = robust_line(before, after)
    assert (line.slope, line.intercept) == pytest.approx(by_all_pairs(before, after))


def test_a_fifth_of_wild_pictures_does_not_move_it() -> None:
    before = RNG.gamma(20, 0.02, 100)
    after = 1.02 * before + 0.01
    after[:20] += RNG.uniform(1, 5, 20)
    line = robust_line(before, after)
    assert line.slope == pytest.approx(1.02, abs=0.02)
    # A fifth of them above moves a median by a few of the others, and by none of their size.
    assert line(np.array([0.5])) == pytest.approx(0.52, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (np.array([0.4, 0.5, 0.8]), np.array([0.44, 0.5, 0.8]), Line(1.0, 0.0)),  # too few
        (np.full(20, 0.5), np.full(20, 0.55), Line(pytest.approx(1.1), 0.0)),  # copies
        (np.linspace(1, 2, 20), np.linspace(2, 1, 20), Line(pytest.approx(1.0, abs=0.04), 0.0)),
        (np.zeros(20), np.full(20, 0.25), Line(1.0, 0.25)),
        (np.array([0.5]), np.array([0.6]), Line(pytest.approx(1.2), 0.0)),
    ],
    ids=["few", "copies", "falling", "zeros", "one"],
)
def test_where_no_line_can_be_had(before: np.ndarray, after: np.ndarray, expected: Line) -> None:
    assert robust_line(before, after) == expected


@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.06])
def test_the_spread_that_a_conversion_adds_is_carried_over(scatter: float) -> None:
    """Normal scores that are carried over are spread as the converted model's own are."""
    before = RNG.normal(0.5, 0.05, 4000)
    after = 1.04 * before - 0.01 + RNG.normal(0, scatter, 4000)
    line = carrying_line(before, after)
    carried = line(before)
    for share in (0.5, 0.95, 0.99):
        assert np.quantile(carried, share) == pytest.approx(np.quantile(after, share), abs=0.012)
    # The plain line's tail would be passed more often than the rate says.
    plain = float(np.quantile(robust_line(before, after)(before), 0.95))
    assert (after >= plain).mean() == pytest.approx(0.05, abs=0.01) or scatter > 0.01
    assert (after >= np.quantile(carried, 0.95)).mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("count", [1, 5])
def test_with_few_pictures_nothing_is_known_of_the_spread(count: int) -> None:
    before, after = RNG.gamma(20, 0.02, (2, count))
    assert carrying_line(before, after) == robust_line(before, after)


def test_without_any_spread_there_is_none_to_carry() -> None:
    before, after = np.full(20, 0.5), np.linspace(0.4, 0.6, 20)
    assert carrying_line(before, after) == robust_line(before, after)


def test_scores_and_maxima_go_by_lines_of_their_own() -> None:
    normal = normal_scores(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.2]), "line")
    carried = carry_over(normal, Line(2.0, 1.0), Line(0.5, 0.0))
    assert carried.scores == (3.0, 5.0, 7.0)
    assert carried.map_maxima == pytest.approx((0.05, 0.1, 0.15))
    assert (carried.mean, carried.source) == (5.0, "line")
    assert carried.carried_over and not normal.carried_over
    rule = threshold_of_fit(carried, 0.1).rule
    assert "carried over from the float32 model's 3 scores of good pictures of the line" in rule
    copies = normal_scores(np.full(3, 0.5), np.full(3, 0.5), "cross-fit")
    rule = threshold_of_fit(carry_over(copies, Line(1, 0), Line(1, 0)), 0.1).rule
    assert "all 3 good pictures, carried over from float32: they all score" in rule
