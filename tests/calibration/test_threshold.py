"""The threshold keeps what it promises, and says what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.calibration.tail import NormalTail
from patchline.calibration.threshold import (
    DEFAULT_FALSE_ALARM_RATE,
    caveat,
    derive_threshold,
    normal_scores,
)
from patchline.runtime.contract import NormalScores
from patchline.runtime.errors import DataError


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4.0, 0.1, count)


def scores_of(count: int, seed: int = 0) -> NormalScores:
    return normal_scores(draw(count, seed), draw(count, seed + 1000), "cross-fit")


class TestNormalScores:
    def test_they_are_kept_in_order_with_mean_and_deviation(self) -> None:
        scores, maxima = draw(30), draw(30, 1)
        normal = normal_scores(scores, maxima, "line")
        assert list(normal.scores) == sorted(scores.tolist())
        assert list(normal.map_maxima) == sorted(maxima.tolist())
        assert normal.mean == pytest.approx(scores.mean())
        assert normal.std == pytest.approx(np.sqrt(((scores - scores.mean()) ** 2).mean()))
        assert normal.source == "line"

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_is_refused(self, wrong: float) -> None:
        broken = np.append(draw(5), wrong)
        with pytest.raises(DataError, match="finite"):
            normal_scores(broken, draw(6), "cross-fit")
        with pytest.raises(DataError, match="finite"):
            normal_scores(draw(6), broken, "cross-fit")

    def test_none_at_all_is_refused(self) -> None:
        with pytest.raises(DataError, match="at least one"):
            normal_scores(np.array([]), np.array([1.0]), "cross-fit")


class TestDerive:
    def test_it_is_the_tail_of_either_kind_of_score(self) -> None:
        normal = scores_of(80)
        threshold = derive_threshold(normal, 0.01)
        images, maps = NormalTail(draw(80)), NormalTail(draw(80, 1000))
        assert threshold.value == images.threshold(0.01)
        assert threshold.map_value == maps.threshold(0.01)
        assert threshold.interval == images.interval(0.01)
        assert threshold.tail == images.fit()
        assert threshold.false_alarm_rate == 0.01
        assert threshold.supported_rate == pytest.approx(1 / 81)
        assert threshold.f1_max is None

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("cross-fit", "40 cross-fitted scores of good pictures"),
            ("calibration-split", "40 scores of good pictures kept out of the fit"),
            ("line", "40 scores of good pictures of the line"),
        ],
    )
    def test_the_rule_says_where_it_comes_from(self, source: str, words: str) -> None:
        normal = scores_of(40).model_copy(update={"source": source})
        rule = derive_threshold(normal, 0.001).rule
        assert rule == f"expected false-alarm rate 0.1 %, from {words} (generalised Pareto tail)"

    def test_the_manifest_is_enough_to_derive_it_again(self) -> None:
        normal = scores_of(60)
        kept = NormalScores.model_validate_json(normal.model_dump_json())
        assert derive_threshold(kept, 0.02) == derive_threshold(normal, 0.02)

    @given(st.integers(5, 80), st.integers(0, 50), st.floats(1e-4, 0.5))
    @settings(max_examples=15, deadline=None)
    def test_the_value_lies_in_its_interval(self, count: int, seed: int, rate: float) -> None:
        threshold = derive_threshold(scores_of(count, seed), rate)
        assert threshold.interval is not None
        assert threshold.interval[0] <= threshold.value <= threshold.interval[1]

    def test_about_as_many_fresh_good_frames_reach_it_as_promised(self) -> None:
        reached = []
        for seed in range(40):
            normal = scores_of(100, seed)
            value = derive_threshold(normal, DEFAULT_FALSE_ALARM_RATE).value
            reached.append((draw(2000, 9000 + seed) >= value).mean())
        # The standard error of this mean is 0.0035.
        assert np.mean(reached) == pytest.approx(0.05, abs=0.0125)

    def test_identical_scores_are_refused(self) -> None:
        normal = normal_scores(np.full(20, 0.5), draw(20), "line")
        with pytest.raises(DataError, match="all 20 scores"):
            derive_threshold(normal, 0.05)

    @pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, np.nan])
    def test_a_rate_out_of_range_is_refused(self, rate: float) -> None:
        with pytest.raises(DataError, match="between 0 and 1"):
            derive_threshold(scores_of(20), rate)


class TestSupport:
    def test_enough_pictures_need_no_word(self) -> None:
        assert caveat(derive_threshold(scores_of(19), 0.05), 19) is None
        assert caveat(derive_threshold(scores_of(99), 0.01), 99) is None

    def test_too_few_are_told_what_they_support_and_what_is_needed(self) -> None:
        threshold = derive_threshold(scores_of(50), 0.001)
        sentence = caveat(threshold, 50)
        assert sentence is not None
        assert (
            "50 good pictures support a false-alarm rate of 1.96 %, and 0.1 % is asked" in sentence
        )
        assert "at least 999 pictures" in sentence
        assert "--false-alarm-rate 0.02, which needs a threshold of about" in sentence
        assert "defects that score below it pass unseen" in sentence
        assert threshold.supported_value == derive_threshold(scores_of(50), 1 / 51).value

    @pytest.mark.parametrize("count", [3, 18, 49, 66, 209, 998])
    def test_the_rate_it_advises_is_supported(self, count: int) -> None:
        normal = scores_of(count)
        sentence = caveat(derive_threshold(normal, 1e-4), count)
        assert sentence is not None
        advised = float(sentence.split("--false-alarm-rate ")[1].split(",")[0])
        assert caveat(derive_threshold(normal, advised), count) is None
        assert advised <= 1.15 / (count + 1)

    def test_the_number_it_asks_for_is_enough(self) -> None:
        assert caveat(derive_threshold(scores_of(999), 0.001), 999) is None
        assert caveat(derive_threshold(scores_of(998), 0.001), 998) is not None
