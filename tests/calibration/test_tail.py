"""The tail against scipy, against brute force, and against laws whose quantiles are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from patchline.calibration import tail
from patchline.calibration.tail import NormalTail
from patchline.runtime.errors import DataError

RATES = (0.4, 0.2, 0.1, 0.05, 0.01, 0.001, 1e-5)


def draw(count: int, seed: int = 0, law: object = stats.gumbel_r) -> np.ndarray:
    return np.asarray(law.rvs(size=count, random_state=seed))  # type: ignore[attr-defined]


class TestLikelihood:
    @pytest.mark.parametrize("shape", [-1.0, -0.4, 0.0, 0.25, 1.0])
    @pytest.mark.parametrize("scale", [0.7, 1.0, 3.0])
    def test_it_is_the_sum_of_scipys_densities(self, shape: float, scale: float) -> None:
        excesses = np.random.default_rng(0).uniform(0, 0.6, 20)
        found = tail._log_likelihood(excesses, np.array([shape]), np.array([np.log(scale)]))
        expected = stats.genpareto.logpdf(excesses, shape, scale=scale).sum()
        assert found[0, 0] == pytest.approx(expected, rel=1e-12)

    def test_an_excess_past_the_end_of_the_law_is_impossible(self) -> None:
        found = tail._log_likelihood(np.array([0.1, 2.5]), np.array([-0.5]), np.log([1.0, 1.3]))
        assert found[0, 0] == -np.inf  # the law of scale 1 ends at 2
        assert np.isfinite(found[0, 1])

    @pytest.mark.parametrize(
        ("law", "seed"), [(stats.expon, 1), (stats.t(4), 2), (stats.norm, 3), (stats.gumbel_r, 4)]
    )
    def test_the_fit_is_scipys_maximum_likelihood(self, law: object, seed: int) -> None:
        scores = draw(600, seed, law)
        fit = NormalTail(scores).fit()
        assert fit.exceedances == 60
        excesses = np.sort(scores)[-60:] - fit.start
        assert (excesses > 0).all()
        shape, _, scale = stats.genpareto.fit(excesses, floc=0)
        assert fit.shape == pytest.approx(shape, abs=2e-3)
        assert fit.scale == pytest.approx(scale, rel=2e-3)

    def test_a_law_that_ends_stays_within_the_shapes(self) -> None:
        # scipy's likelihood grows without bound below -1.
        assert NormalTail(draw(60, 5, stats.beta(2, 0.5))).fit().shape >= -1


class TestThreshold:
    @pytest.mark.parametrize("count", [3, 10, 40, 200])
    def test_within_the_scores_it_is_the_order_statistic(self, count: int) -> None:
        scores = np.sort(draw(count))
        law = NormalTail(scores)
        excesses = law.fit().exceedances
        for rank in range(1, count - excesses + 1):
            rate = (count + 1 - rank) / (count + 1)
            assert law.threshold(rate) == pytest.approx(scores[rank - 1], rel=1e-9)

    def test_the_chance_to_pass_a_threshold_is_the_rate_over_the_posterior(self) -> None:
        """The definition, with the posterior integrated by scipy instead of summed on a grid."""
        scores = np.sort(draw(40, 7))
        law = NormalTail(scores)
        start, count = law.fit().start, law.fit().exceedances
        excesses = scores[-count:] - start
        mean = excesses.mean()

        def density(log_scale: float, shape: float) -> float:
            scale = mean * np.exp(log_scale)
            return float(np.exp(stats.genpareto.logpdf(excesses, shape, scale=scale).sum()))

        def passed(log_scale: float, shape: float, excess: float) -> float:
            survival = stats.genpareto.sf(excess, shape, scale=mean * np.exp(log_scale))
            return density(log_scale, shape) * float(survival)

        ends = (np.log(0.04), np.log(25), -1.0, 1.0)
        low, high, least, most = ends
        options = {"epsabs": 0.0, "epsrel": 1e-3}
        rate = 0.02
        excess = law.threshold(rate) - start
        whole = integrate.dblquad(density, least, most, low, high, **options)[0]
        above = integrate.dblquad(passed, least, most, low, high, (excess,), **options)[0]
        assert above / whole * (count + 1) / 41 == pytest.approx(rate, rel=0.03)

    @given(
        st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60),
        st.tuples(st.floats(1e-4, 0.9), st.floats(1e-4, 0.9)),
    )
    @settings(max_examples=30, deadline=None)
    def test_a_lower_rate_is_never_a_lower_threshold(
        self, scores: list[float], rates: tuple[float, float]
    ) -> None:
        values = np.array(scores)
        if np.ptp(values) <= 1e-6 * np.abs(values).max():
            return
        law = NormalTail(values)
        few, many = sorted(rates)
        slack = 1e-9 * np.abs(values).max()
        assert law.threshold(few) >= law.threshold(many) - slack
        low, high = law.interval(few)
        assert low <= law.threshold(few) <= high

    @pytest.mark.parametrize("rate", RATES)
    def test_it_moves_with_the_unit_of_the_scores(self, rate: float) -> None:
        scores = draw(80, 8)
        one, other = NormalTail(scores), NormalTail(1000 * scores + 7)
        assert other.threshold(rate) == pytest.approx(1000 * one.threshold(rate) + 7, rel=1e-6)
        assert other.interval(rate) == pytest.approx(
            [1000 * end + 7 for end in one.interval(rate)], rel=1e-6
        )

    def test_the_order_of_the_scores_plays_no_part(self) -> None:
        scores = draw(50, 9)
        shuffled = np.random.default_rng(1).permutation(scores)
        assert NormalTail(scores).threshold(0.01) == NormalTail(shuffled).threshold(0.01)

    def test_it_does_not_jump_where_the_tail_begins(self) -> None:
        scores = draw(200, 10)
        law = NormalTail(scores)
        rate = (law.fit().exceedances + 1) / 201
        assert law.threshold(rate * (1 - 1e-9)) == pytest.approx(law.threshold(rate), abs=1e-6)


class TestInterval:
    def test_within_the_scores_it_is_that_of_order_statistics(self) -> None:
        """Binomial ranks by hand: no law is assumed there."""
        scores = np.sort(draw(200, 11))
        low, high = NormalTail(scores).interval(0.3)
        ranks = np.searchsorted(scores, [low, high]) + 1
        reached = stats.binom(200, 0.7)
        assert reached.cdf(ranks[1] - 1) - reached.cdf(ranks[0] - 1) >= 0.95
        assert reached.cdf(ranks[0] - 1) <= 0.025 and reached.sf(ranks[1] - 1) <= 0.025

    def test_fewer_pictures_make_it_wider(self) -> None:
        widths = []
        for count in (20, 60, 200, 1000):
            ends = [NormalTail(draw(count, seed)).interval(0.01) for seed in range(15)]
            widths.append(np.median([high - low for low, high in ends]))
        assert widths == sorted(widths, reverse=True)
        assert widths[0] > 4 * widths[-1]

    def test_a_rate_past_the_scores_makes_it_wider(self) -> None:
        law = NormalTail(draw(200, 12))
        ends = [law.interval(rate) for rate in (0.05, 0.01, 0.001)]
        widths = [high - low for low, high in ends]
        assert widths == sorted(widths)
        assert law.supported_rate == pytest.approx(1 / 201)

    @pytest.mark.parametrize(
        "law",
        [stats.uniform, stats.norm, stats.expon, stats.lognorm(1), stats.t(4), stats.pareto(2)],
        ids=["uniform", "normal", "exponential", "log-normal", "t4", "pareto2"],
    )
    @pytest.mark.parametrize(("count", "rate"), [(50, 0.001), (200, 0.01)])
    def test_it_covers_the_true_quantile(self, law: object, count: int, rate: float) -> None:
        """60 draws; fewer than 50 of them would be a chance of 1 in 1,400 at a coverage of 95 %."""
        true = law.isf(rate)  # type: ignore[attr-defined]
        covered, passed = 0, []
        for seed in range(60):
            found = NormalTail(draw(count, seed, law))
            low, high = found.interval(rate)
            covered += low <= true <= high
            passed.append(law.sf(found.threshold(rate)))  # type: ignore[attr-defined]
        assert covered >= 50
        # The promise is about the mean; 60 draws tell it within a factor.
        assert np.mean(passed) <= 2.5 * rate


class TestOddScores:
    def test_two_scores_are_enough_for_something(self) -> None:
        law = NormalTail(np.array([1.0, 2.0]))
        assert law.threshold(0.05) > 2
        low, high = law.interval(0.05)
        assert low <= law.threshold(0.05) <= high
        assert law.supported_rate == pytest.approx(1 / 3)

    @pytest.mark.parametrize("tied", [2, 15, 39])
    def test_the_largest_may_be_tied(self, tied: int) -> None:
        scores = np.append(np.linspace(0, 1, 40 - tied), np.ones(tied))
        law = NormalTail(scores)
        assert np.isfinite([law.threshold(rate) for rate in RATES]).all()
        assert law.threshold(0.001) >= 1

    def test_one_far_score_is_kept(self) -> None:
        scores = np.append(draw(50, 13, stats.norm), 1000.0)
        low, high = NormalTail(scores).interval(0.001)
        assert low < 1000 < high

    def test_many_scores_take_a_bounded_tail(self) -> None:
        law = NormalTail(draw(20_000, 14))
        assert law.fit().exceedances == tail.MOST_EXCESSES
        assert law.threshold(1e-4) == pytest.approx(stats.gumbel_r.isf(1e-4), rel=0.15)

    @pytest.mark.parametrize(
        ("scores", "words"),
        [
            ([], "too few"),
            ([1.0], "too few"),
            ([2.0, 2.0, 2.0], "all 3 scores of good pictures are the same"),
            ([0.0, 0.0], "the same"),
            ([1.0, np.nan], "finite"),
            ([1.0, np.inf], "finite"),
            ([[1.0, 2.0]], "finite"),
        ],
    )
    def test_what_gives_no_threshold_is_refused(self, scores: list[float], words: str) -> None:
        with pytest.raises(DataError, match=words):
            NormalTail(np.array(scores))

    @pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, np.nan])
    def test_a_rate_out_of_range_is_refused(self, rate: float) -> None:
        law = NormalTail(draw(20, 15))
        with pytest.raises(DataError, match="between 0 and 1"):
            law.threshold(rate)
        with pytest.raises(DataError, match="between 0 and 1"):
            law.interval(rate)
