"""The drift measure against its definition, when drift starts and ends, and that chance is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.contract import NormalScores
from patchline.runtime.decisions.drift import (
    DEFAULT_WINDOW,
    LARGEST_WINDOW,
    LEAST_NORMAL_SCORES,
    LEAST_WINDOW,
    STARTS_AT,
    Drift,
    watch_drift,
)
from patchline.runtime.decisions.event import Phase
from patchline.runtime.errors import ConfigurationError

from .drift_simulation import furthest, moving_measure, runs

NORMAL = np.linspace(1.0, 2.0, 101)
FEW = st.sampled_from([0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 3.0])  # with many ties


def slow_measure(scores: Sequence[float], normal_scores: Sequence[float]) -> float:
    """P(score > normal) + P(equal) / 2, pair by pair."""
    pairs = [(score, normal) for score in scores for normal in normal_scores]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def feed(drift: Drift, scores: Any) -> list[Phase]:
    return [phase for score in scores if (phase := drift.feed(float(score))) is not None]


def normal_scores(count: int) -> NormalScores:
    scores = tuple(float(score) for score in np.linspace(1.0, 2.0, count))
    return NormalScores(scores=scores, map_maxima=scores, mean=1.5, std=0.3)


@given(
    st.lists(FEW, min_size=LEAST_NORMAL_SCORES, max_size=30),
    st.lists(FEW, min_size=LEAST_WINDOW, max_size=LEAST_WINDOW + 30),
)
@settings(max_examples=30, deadline=None)
def test_the_measure_is_its_definition(normal: list[float], scores: list[float]) -> None:
    drift = Drift(normal, LEAST_WINDOW)
    for seen, score in enumerate(scores, start=1):
        drift.feed(score)
        assert (drift.measure is None) == (seen < LEAST_WINDOW)
    expected = slow_measure(scores[-LEAST_WINDOW:], normal)
    assert drift.measure == pytest.approx(expected, abs=1e-12)


def test_nothing_adds_up_over_many_frames() -> None:
    rng = np.random.default_rng(0)
    scores = rng.lognormal(0.0, 3.0, 60_000)
    drift = Drift(rng.lognormal(0.0, 3.0, 77).tolist(), 101)
    feed(drift, scores)
    latest = feed_fresh(drift, scores[-101:])
    assert drift.measure == latest  # not just nearly


def feed_fresh(like: Drift, scores: Any) -> float | None:
    drift = Drift(like._normal.tolist(), len(scores))
    feed(drift, scores)
    return drift.measure


@pytest.mark.parametrize(("shifted", "cause"), [(9.0, "dirty lens"), (0.1, "stands still")])
def test_a_shift_is_one_drift_that_ends_when_the_scores_are_back(
    shifted: float, cause: str
) -> None:
    rng = np.random.default_rng(0)
    drift = Drift(NORMAL.tolist())
    assert feed(drift, rng.uniform(1, 2, 1000)) == []
    assert feed(drift, [shifted] * 150) == []
    assert feed(drift, [shifted] * 500) == [Phase.STARTED]
    assert drift.is_drifting
    assert cause in drift.detail
    assert ("higher than" if shifted > 2 else "lower than") in drift.detail
    assert feed(drift, rng.uniform(1, 2, 60)) == []  # back by less than a third of the window
    assert feed(drift, rng.uniform(1, 2, 1000)) == [Phase.ENDED]
    assert "are back" in drift.detail


def test_the_limits_are_those_that_are_documented() -> None:
    # 40 normal scores and 100 frames: higher than 36 of the 40 is a measure of exactly 0.9.
    normal = list(range(40))
    assert feed(Drift(normal, 100), [35.5] * 100) == [Phase.STARTED]
    assert feed(Drift(normal, 100), [35.0] * 100) == []  # 0.8875
    assert feed(Drift(normal, 100), [3.5] * 100) == [Phase.STARTED]
    assert feed(Drift(normal, 100), [4.0] * 100) == []
    for end, stays in ((29.5, 30.0), (9.5, 9.0)):  # exactly 0.75 and 0.25 are back
        drift = Drift(normal, 100)
        feed(drift, [39.5 if end > 20 else -0.5] * 100)
        assert feed(drift, [stays] * 100) == []
        assert feed(drift, [end] * 100) == [Phase.ENDED]


def test_from_one_side_to_the_other_it_ends_in_between() -> None:
    drift = Drift(NORMAL.tolist(), 100)
    assert feed(drift, [9.0] * 100 + [0.0] * 100) == [Phase.STARTED, Phase.ENDED, Phase.STARTED]
    assert "lower than" in drift.detail


@pytest.mark.parametrize("defective", [0, 60, 120, 158])
def test_a_share_of_defects_is_no_drift(defective: int) -> None:
    """A = share + (1 - share) / 2: with normal scores beside them, 0.9 takes 80 % defects."""
    scores = [9.0] * defective + [1.5] * (DEFAULT_WINDOW - defective)
    drift = Drift(NORMAL.tolist())
    assert feed(drift, np.random.default_rng(0).permutation(scores)) == []
    share = defective / DEFAULT_WINDOW
    assert drift.measure == pytest.approx(share + (1 - share) / 2)


def test_four_fifths_of_defects_are_a_drift() -> None:
    scores = [1.5] * (DEFAULT_WINDOW // 5) + [9.0] * (4 * DEFAULT_WINDOW // 5)
    assert feed(Drift(NORMAL.tolist()), scores) == [Phase.STARTED]


def test_with_a_mask_lower_scores_are_no_drift() -> None:
    drift = Drift(NORMAL.tolist(), watches_lower=False)
    assert feed(drift, [0.0] * 500) == []
    assert feed(drift, [9.0] * 500) == [Phase.STARTED]


def test_the_order_of_the_normal_scores_does_not_matter() -> None:
    scores = np.random.default_rng(3).uniform(1.2, 2.2, DEFAULT_WINDOW)
    shuffled = np.random.default_rng(4).permutation(NORMAL)
    assert moved(NORMAL, scores) == moved(shuffled, scores)


def moved(normal: Any, scores: Any) -> float | None:
    drift = Drift(normal.tolist())
    feed(drift, scores)
    return drift.measure


def test_few_normal_scores_allow_no_watch_and_that_is_said() -> None:
    said: list[str] = []
    assert watch_drift(normal_scores(LEAST_NORMAL_SCORES - 1), say=said.append) is None
    assert len(said) == 1
    assert "19 normal scores, and 20 are needed" in said[0]
    with pytest.raises(ConfigurationError, match="19 normal scores"):
        Drift([1.0] * 19)
    assert isinstance(watch_drift(normal_scores(LEAST_NORMAL_SCORES), say=said.append), Drift)
    assert len(said) == 1


def test_the_watch_of_a_manifest_knows_of_the_mask() -> None:
    for has_mask, expected in ((False, [Phase.STARTED]), (True, [])):
        drift = watch_drift(normal_scores(30), 120, has_mask=has_mask, say=pytest.fail)
        assert drift is not None
        assert feed(drift, [0.0] * 120) == expected


@pytest.mark.parametrize("window", [0, -1, LEAST_WINDOW - 1, LARGEST_WINDOW + 1])
@pytest.mark.parametrize("count", [5, 50])
def test_a_window_out_of_range_is_refused(window: int, count: int) -> None:
    with pytest.raises(ConfigurationError, match="expected 100 to 100000"):
        watch_drift(normal_scores(count), window, say=lambda text: None)


def test_the_simulation_measures_what_the_watch_measures() -> None:
    rng = np.random.default_rng(5)
    scores, normal = rng.random(400), rng.random(33)
    measures = moving_measure(scores, normal, 100)
    drift = Drift(normal.tolist(), 100)
    found = [drift.measure for score in scores if drift.feed(float(score)) or drift.measure]
    np.testing.assert_allclose(np.array(found, float), measures, atol=1e-12)


@pytest.mark.parametrize("normal", [20, 50, 200])
def test_chance_makes_no_drift(normal: int) -> None:
    """Far from it: docs/decisions.md has the figures of longer runs."""
    found = furthest(runs(normal, DEFAULT_WINDOW, sets=100, frames=20_000))
    assert found.max() < STARTS_AT - 0.5 - 0.05
