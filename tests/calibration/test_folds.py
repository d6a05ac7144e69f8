"""Every image is held out once, in equal shares, as the seed has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.calibration.folds import FOLDS, assign_folds
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
