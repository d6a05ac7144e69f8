"""The region of interest: what it inspects, what it gives, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from patchline.runtime.decisions.mask import Mask, check_score, load_mask, score_within
from patchline.runtime.errors import ConfigurationError, FrameError

INSIDES = numpy_st.arrays(
    np.bool_, numpy_st.array_shapes(min_dims=2, max_dims=2, max_side=9)
).filter(np.any)


def slow_at(inside: Any, height: int, width: int) -> Any:
    """Every cell of the map, and every pixel of the mask that shares some area with it."""
    found = np.zeros((height, width), bool)
    for y, x in np.argwhere(inside):
        for row in range(height):
            for column in range(width):
                touches = shares(row, height, y, inside.shape[0])
                found[row, column] |= touches and shares(column, width, x, inside.shape[1])
    return found


def shares(cell: int, cells: int, pixel: int, pixels: int) -> bool:
    return cell * pixels < (pixel + 1) * cells and pixel * cells < (cell + 1) * pixels


@given(INSIDES, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_a_value_of_the_map_is_inside_if_it_touches_white(
    inside: Any, height: int, width: int
) -> None:
    found = Mask(inside, "m").at((height, width))
    np.testing.assert_array_equal(found, slow_at(inside, height, width))
    assert found.any()


@given(INSIDES, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_the_score_is_the_largest_value_inside(inside: Any, seed: int) -> None:
    anomaly_map = np.random.default_rng(seed).random((7, 5)).astype(np.float32)
    mask = Mask(inside, "m")
    expected = max(anomaly_map[y, x] for y, x in np.argwhere(slow_at(inside, 7, 5)))
    assert score_within(anomaly_map, mask) == expected
    applied = mask.apply(anomaly_map)
    assert applied.max() == expected
    assert applied.dtype == np.float32
    np.testing.assert_array_equal(applied[mask.at((7, 5))], anomaly_map[mask.at((7, 5))])
    assert not applied[~mask.at((7, 5))].any()


def test_a_line_as_thin_as_a_pixel_is_inspected_on_a_small_map() -> None:
    inside = np.zeros((1080, 1920), bool)
    inside[500, 100:1800] = True
    assert Mask(inside, "m").at((64, 64)).sum(axis=0).tolist() == [0] * 3 + [1] * 57 + [0] * 4


def write(path: Path, picture: Any) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (30, 40, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_picture_is_a_mask(tmp_path: Path, shape: Any, dtype: Any) -> None:
    picture = np.zeros(shape, dtype)
    picture[10:20, 4:9] = np.iinfo(dtype).max
    expected = np.zeros((30, 40), bool)
    expected[10:20, 4:9] = True
    mask = load_mask(write(tmp_path / "mask.png", picture))
    np.testing.assert_array_equal(mask.at((30, 40)), expected)
    mask.check((300, 400))


def test_from_half_gray_on_it_is_white(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.png", np.array([[127, 128]], np.uint8))
    assert load_mask(path).at((1, 2)).tolist() == [[False, True]]


def test_a_black_mask_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "black.png", np.full((9, 9), 100, np.uint8))
    with pytest.raises(ConfigurationError, match=r"black\.png inspects nothing.*White is what"):
        load_mask(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    for name in ("no.png", "missing.png"):
        with pytest.raises(ConfigurationError, match=rf"the mask: cannot read .*{name}"):
            load_mask(tmp_path / name)


@pytest.mark.parametrize("picture", [(1000, 2000), (1, 2), (1000, 1961), (1000, 2039)])
def test_a_picture_of_nearly_the_same_shape_is_taken(picture: tuple[int, int]) -> None:
    Mask(np.ones((50, 100), bool), "m").check(picture)


@pytest.mark.parametrize("picture", [(1000, 1960), (1000, 2041), (2000, 1000), (1000, 1000)])
def test_a_picture_of_another_shape_is_refused(picture: tuple[int, int]) -> None:
    mask = Mask(np.ones((50, 100), bool), "roi.png")
    height, width = picture
    with pytest.raises(FrameError, match=rf"roi\.png is 100 x 50 .* {width} x {height}"):
        mask.check(picture)


@pytest.mark.parametrize("score", ["noise-response", "distance"])
def test_scores_that_are_the_largest_value_of_the_map_may_be_masked(score: str) -> None:
    check_score(score, Mask(np.ones((1, 1), bool), "m"))


@pytest.mark.parametrize("score", ["patchcore", "weighted-sum", "another"])
def test_other_scores_may_not(score: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{score}.*Export with --score"):
        check_score(score, Mask(np.ones((1, 1), bool), "m"))
