"""Every image is held out once, in equal shares, as the seed has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.calibration.folds import FOLDS, assign_calibration, assign_folds
from patchline.runtime.errors import DataError


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 400), st.integers(0, 2**31), st.integers(2, 12))
def test_every_image_is_in_one_fold_and_the_shares_are_equal(
    images: int, seed: int, folds: int
) -> None:
    assigned = assign_folds(images, seed, folds)
    assert assigned.shape == (images,)
    assert assigned.dtype == np.int64
    counts = np.bincount(assigned)
    assert len(counts) == min(folds, images)
    assert counts.sum() == images
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_five_folds_unless_told_otherwise() -> None:
    assert FOLDS == 5
    assert np.bincount(assign_folds(23, 0)).tolist() == [5, 5, 5, 4, 4]


@pytest.mark.parametrize("images", [2, 3, 4])
def test_fewer_images_than_folds_are_held_out_one_by_one(images: int) -> None:
    assert sorted(assign_folds(images, 0).tolist()) == list(range(images))


def test_the_seed_decides() -> None:
    assert assign_folds(100, 3).tolist() == assign_folds(100, 3).tolist()
    assert assign_folds(100, 3).tolist() != assign_folds(100, 4).tolist()


def test_neighbours_in_time_fall_into_different_folds() -> None:
    """Drawn, not dealt in turn and not in runs."""
    assigned = assign_folds(1000, 0)
    steps = np.diff(assigned) % FOLDS
    shares = np.bincount(steps, minlength=FOLDS) / len(steps)
    np.testing.assert_allclose(shares, 1 / FOLDS, atol=0.06)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_are_refused(images: int) -> None:
    with pytest.raises(DataError, match=f"{images} good picture.*at least 2"):
        assign_folds(images, 0)


@settings(max_examples=80, deadline=None)
@given(st.integers(4, 400), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_a_calibration_split_is_the_share_asked_for(images: int, share: float, seed: int) -> None:
    held_out = assign_calibration(images, share, seed)
    assert held_out.shape == (images,) and held_out.dtype == np.bool_
    count = int(held_out.sum())
    assert 2 <= count <= images - 2
    assert abs(count - share * images) <= 2
    assert np.array_equal(held_out, assign_calibration(images, share, seed))


def test_a_calibration_split_is_drawn() -> None:
    assert not np.array_equal(assign_calibration(50, 0.2, 0), assign_calibration(50, 0.2, 1))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.2, float("nan")])
def test_a_calibration_split_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        assign_calibration(20, share, 0)


def test_a_calibration_split_of_three_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="at least 4"):
        assign_calibration(3, 0.5, 0)
