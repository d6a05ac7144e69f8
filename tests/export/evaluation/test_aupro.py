"""AUPRO against the definition, threshold by threshold, and on maps made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.export.evaluation.aupro import aupro, check_fpr_limit, pro_curve, region_overlaps
from patchline.export.evaluation.pixel_counts import count_pixels
from patchline.export.evaluation.result import Curve
from patchline.runtime.errors import ConfigurationError, DataError

from .pixels import Pair, all_pixels, random_set, regions_of, slow_aupro, slow_pro_curve, test_sets

LIMITS = [0.01, 0.05, 0.3, 0.7, 1.0]


def curve_of(defective: list[Pair], good: list[np.ndarray]) -> Curve:
    counts = count_pixels(defective, good)
    return pro_curve(counts, region_overlaps(defective, counts.levels))


def aupro_of(defective: list[Pair], good: list[np.ndarray], fpr_limit: float = 0.3) -> float:
    return aupro(curve_of(defective, good), fpr_limit)


def one(scores: list[list[float]], mask: list[list[int]]) -> list[Pair]:
    return [(np.array(scores, np.float32), np.array(mask, bool))]


class TestReference:
    @pytest.mark.parametrize("levels", [None, 1, 3, 50])
    @pytest.mark.parametrize("seed", range(3))
    def test_random_maps(self, seed: int, levels: int | None) -> None:
        made = random_set(seed, levels)
        for limit in LIMITS:
            assert aupro_of(*made, limit) == pytest.approx(slow_aupro(*made, limit), abs=1e-10)

    @settings(max_examples=200, deadline=None)
    @given(test_sets(), st.floats(0.01, 1))
    def test_any_maps(self, made: tuple[list[Pair], list[np.ndarray]], limit: float) -> None:
        found = aupro_of(*made, limit)
        assert found == pytest.approx(slow_aupro(*made, limit), abs=1e-10)
        assert 0 <= found <= 1

    def test_every_point_of_the_reference_lies_on_the_curve(self) -> None:
        defective, good = random_set(1, 5)
        curve = curve_of(defective, good)
        points = set(zip(curve.x.round(12), curve.y.round(12), strict=True))
        x, y = slow_pro_curve(defective, good)
        # From the highest score down; at one of defect-free pixels alone the curve is level.
        bends = np.isin(
            np.unique(all_pixels(defective, good)[1])[::-1],
            np.concatenate([anomaly_map[mask] for anomaly_map, mask in defective]),
        )
        assert 0 < bends.sum() < len(bends)
        assert set(zip(x[1:][bends].round(12), y[1:][bends].round(12), strict=True)) <= points
        assert np.array_equal(y[1:][~bends], y[:-1][~bends])

    @pytest.mark.parametrize("seed", range(5))
    def test_regions_touch_at_corners(self, seed: int) -> None:
        mask = np.random.default_rng(seed).random((30, 30)) < 0.3
        scores = np.zeros((30, 30), np.float32)
        overlaps = region_overlaps([(scores, mask)], np.zeros(1, np.float32))
        assert overlaps.sum() == pytest.approx(len(regions_of(mask)))


MASK = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]


class TestByHand:
    def test_a_perfect_map(self) -> None:
        scores = np.array(MASK, float) * 2
        for limit in LIMITS:
            assert aupro_of(one(scores.tolist(), MASK), [], limit) == 1

    def test_an_inverted_map(self) -> None:
        scores = -np.array(MASK, float)
        assert aupro_of(one(scores.tolist(), MASK), [], 0.3) == 0
        assert aupro_of(one(scores.tolist(), MASK), [], 1.0) == 0

    def test_a_constant_map_is_the_diagonal(self) -> None:
        flat = one([[4.0] * 5] * 3, MASK)
        curve = curve_of(flat, [])
        # All pixels are reached at once; nothing lies in the gaps beside.
        assert sorted(set(zip(curve.x.tolist(), curve.y.tolist(), strict=True))) == [(0, 0), (1, 1)]
        assert aupro(curve, 0.3) == pytest.approx(0.15)
        assert aupro(curve, 1.0) == pytest.approx(0.5)

    def test_a_small_region_counts_as_much_as_a_big_one(self) -> None:
        """Only the region of four pixels is found, or only that of one: half of all regions."""
        for found in (
            [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0] * 5],
            [[0] * 5, [0] * 5, [0, 0, 0, 0, 1]],
        ):
            # The other region lies below all defect-free pixels.
            scores = np.array(found, float) * 2 - (np.array(MASK) - np.array(found))
            assert aupro_of(one(scores.tolist(), MASK), [], 1.0) == pytest.approx(0.5)

    def test_regions_of_two_pictures_weigh_alike(self) -> None:
        big = one([[2, 2, 2, 0]], [[1, 1, 1, 0]])
        small = one([[-1, 0, 0, 0]], [[1, 0, 0, 0]])
        assert aupro_of(big + small, [], 0.5) == pytest.approx(0.5)

    def test_ties_of_defect_and_normal_pixels_move_diagonally(self) -> None:
        # Highest: one of two defective and one of four defect-free pixels; then the rest.
        tied = one([[5, 5, 1, 0, 0, 0]], [[1, 0, 1, 0, 0, 0]])
        curve = curve_of(tied, [])
        assert np.interp([0.25, 0.125], curve.x, curve.y).tolist() == [1.0, 0.25]
        assert aupro(curve, 0.25) == pytest.approx(0.25)

    def test_the_curve_is_cut_by_interpolation_at_the_limit(self) -> None:
        curve = Curve(np.array([0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.4, 0.8, 1.0]))
        # To 0.2: 0.04; from there to 0.3 the curve rises from 0.4 to 0.5.
        assert aupro(curve, 0.3) == pytest.approx((0.04 + 0.045) / 0.3)
        assert aupro(curve, 0.2) == pytest.approx(0.04 / 0.2)

    def test_good_pictures_count_in_the_false_positive_rate(self) -> None:
        defective = one([[3, 1, 1]], [[1, 0, 0]])
        assert aupro_of(defective, [np.full((1, 3), 5, np.float32)], 0.6) == 0
        assert aupro_of(defective, [np.full((1, 3), 2, np.float32)], 0.6) == 1


class TestInvariance:
    @settings(max_examples=60, deadline=None)
    @given(test_sets())
    def test_only_the_order_of_scores_counts(
        self, made: tuple[list[Pair], list[np.ndarray]]
    ) -> None:
        defective, good = made
        scores = np.unique(np.concatenate([m.ravel() for m in [*good, *(m for m, _ in defective)]]))

        def ranks(anomaly_map: np.ndarray) -> np.ndarray:
            return np.searchsorted(scores, anomaly_map).astype(np.float32)

        ranked = [(ranks(m), mask) for m, mask in defective], [ranks(m) for m in good]
        assert aupro_of(*ranked) == pytest.approx(aupro_of(*made), abs=1e-12)

    @settings(max_examples=60, deadline=None)
    @given(test_sets(), st.randoms(use_true_random=False))
    def test_the_order_of_pictures_does_not_count(
        self, made: tuple[list[Pair], list[np.ndarray]], random: object
    ) -> None:
        defective, good = list(made[0]), list(made[1])
        random.shuffle(defective)  # type: ignore[attr-defined]
        random.shuffle(good)  # type: ignore[attr-defined]
        assert aupro_of(defective, good) == pytest.approx(aupro_of(*made), abs=1e-12)

    @settings(max_examples=60, deadline=None)
    @given(test_sets())
    def test_good_pixels_may_come_in_one_map_or_in_many(
        self, made: tuple[list[Pair], list[np.ndarray]]
    ) -> None:
        defective, good = made
        rows = [row[None] for anomaly_map in good for row in anomaly_map]
        assert aupro_of(defective, rows) == aupro_of(defective, good)


@pytest.mark.parametrize("limit", [0, -0.1, 1.001, np.nan, np.inf])
def test_a_limit_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(ConfigurationError, match=r"fpr_limit is .*\(0, 1\]"):
        check_fpr_limit(limit)
    with pytest.raises(ConfigurationError, match="fpr_limit"):
        aupro(Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0])), limit)


def test_without_defect_free_pixels_there_is_no_rate() -> None:
    with pytest.raises(DataError, match="every pixel"):
        curve_of(one([[1, 2]], [[1, 1]]), [])
