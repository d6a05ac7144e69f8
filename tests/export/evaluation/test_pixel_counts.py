"""Counting by gaps gives what scikit-learn gives over every single pixel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from patchline.export.evaluation.pixel_counts import count_pixels, pixel_ranking
from patchline.runtime.errors import DataError

from .pixels import Pair, all_pixels, random_set, test_sets


def assert_same_as_over_all_pixels(defective: list[Pair], good: list[np.ndarray]) -> None:
    labels, scores = all_pixels(defective, good)
    found = pixel_ranking(count_pixels(defective, good))
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    thresholds = np.unique(scores)
    tp = np.array([(scores[labels] >= t).sum() for t in thresholds])
    fp = np.array([(scores[~labels] >= t).sum() for t in thresholds])
    assert found.f1_max == pytest.approx((2 * tp / (tp + fp + labels.sum())).max(), abs=1e-12)
    assert found.iou_max == pytest.approx((tp / (fp + labels.sum())).max(), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 1, 3, 50])
@pytest.mark.parametrize("seed", range(4))
def test_random_maps(seed: int, levels: int | None) -> None:
    assert_same_as_over_all_pixels(*random_set(seed, levels))


@settings(max_examples=200, deadline=None)
@given(test_sets())
def test_any_maps(made: tuple[list[Pair], list[np.ndarray]]) -> None:
    assume(len(np.unique(all_pixels(*made)[1])) > 1)
    assert_same_as_over_all_pixels(*made)


def test_neighbouring_floats_have_a_gap_between_them() -> None:
    """No float32 lies between the two scores, and the order is seen all the same."""
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    mask = np.array([[True, True, False, False]])
    for scores in ([low, high, low, high], [high, high, low, low], [low, low, high, high]):
        pair = (np.array([scores], np.float32), mask)
        assert_same_as_over_all_pixels([pair], [])


def test_the_counts_themselves() -> None:
    pair = (
        np.array([[1, 3, 3, 0, 1, 2, 3, 9]], np.float32),
        np.array([[1, 1, 1, 0, 0, 0, 0, 0]], bool),
    )
    counts = count_pixels([pair], [np.array([[2, 2], [-5, 3]], np.float32)])
    assert counts.levels.tolist() == [1, 3]
    assert counts.defective.tolist() == [1, 2]
    # Below 1; at 1; between; at 3; above 3.
    assert counts.defect_free.tolist() == [2, 1, 3, 2, 1]


def test_good_maps_are_asked_for_one_by_one_and_only_their_order_counts() -> None:
    defective, good = random_set(5, 4)
    asked: list[int] = []

    def one_by_one(order: list[int]) -> Iterator[np.ndarray]:
        for index in order:
            asked.append(index)
            yield good[index]

    forward = count_pixels(defective, one_by_one([0, 1, 2]))
    backward = count_pixels(defective[::-1], one_by_one([2, 1, 0]))
    assert asked == [0, 1, 2, 2, 1, 0]
    assert np.array_equal(forward.defect_free, backward.defect_free)
    assert np.array_equal(forward.defective, backward.defective)


@settings(max_examples=50, deadline=None)
@given(test_sets(), st.sampled_from([np.exp, np.arctan, lambda m: m**3, lambda m: 5 * m - 2]))
def test_only_the_order_of_scores_counts(
    made: tuple[list[Pair], list[np.ndarray]], f: object
) -> None:
    assert callable(f)
    defective, good = made
    changed = count_pixels([(f(m), mask) for m, mask in defective], [f(m) for m in good])
    counts = count_pixels(defective, good)
    assert np.array_equal(changed.defective, counts.defective)
    assert np.array_equal(changed.defect_free, counts.defect_free)


def test_the_reference_agrees_with_scikit_learns_curve() -> None:
    labels, scores = all_pixels(*random_set(2, 6))
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    found = pixel_ranking(count_pixels(*random_set(2, 6)))
    assert found.f1_max == pytest.approx(f1.max(), abs=1e-12)


FLAT = np.ones((2, 3), np.float32)
HALF = np.array([[1, 1, 0], [0, 0, 0]], bool)


def test_masks_that_mark_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no pixel of the test set is marked defective"):
        count_pixels([(FLAT, ~HALF & HALF)], [FLAT])
    with pytest.raises(DataError, match="no pixel"):
        count_pixels([], [FLAT])


def test_masks_that_mark_everything_leave_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="every pixel of the test set is marked defective"):
        pixel_ranking(count_pixels([(FLAT, HALF | True)], []))


def test_identical_scores_everywhere_are_said() -> None:
    with pytest.raises(DataError, match=r"all 12 pixel scores are identical \(1\)"):
        pixel_ranking(count_pixels([(FLAT, HALF)], [FLAT]))
    other = np.where(HALF, FLAT, 0).astype(np.float32)
    assert pixel_ranking(count_pixels([(other, HALF)], [])).auroc == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    broken = FLAT.copy()
    broken[1, 1] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        count_pixels([(broken, HALF)], [])
    with pytest.raises(DataError, match="NaN or infinite"):
        count_pixels([(FLAT, HALF)], [broken])


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"the mask is \(3, 2\), its anomaly map \(2, 3\)"):
        count_pixels([(FLAT, HALF.T)], [])
