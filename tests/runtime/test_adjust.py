"""Flip and crop against numpy's own slices."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.camera.adjust import AS_IT_IS, Adjustment, Box
from patchline.runtime.camera.options import Flip
from patchline.runtime.errors import ConfigurationError, FrameError

SHAPES = [(7, 9), (7, 9, 1), (7, 9, 3), (7, 9, 4)]


def picture(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return (np.arange(np.prod(shape)) % np.iinfo(dtype).max).astype(dtype).reshape(shape)


def expected(image: np.ndarray, adjustment: Adjustment) -> np.ndarray:
    """Flip the whole picture, then cut: pixel by pixel."""
    height, width = image.shape[:2]
    box = adjustment.crop or Box(0, 0, width, height)
    result = np.zeros((box.height, box.width, *image.shape[2:]), image.dtype)
    for row in range(box.height):
        for column in range(box.width):
            from_row, from_column = box.y + row, box.x + column
            if adjustment.flip.value in ("vertical", "both"):
                from_row = height - 1 - from_row
            if adjustment.flip.value in ("horizontal", "both"):
                from_column = width - 1 - from_column
            result[row, column] = image[from_row, from_column]
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("crop", [None, Box(0, 0, 9, 7), Box(2, 1, 4, 3), Box(8, 6, 1, 1)])
@pytest.mark.parametrize("flip", list(Flip))
def test_flip_comes_first_and_then_the_crop(
    shape: tuple[int, ...], dtype: type, crop: Box | None, flip: Flip
) -> None:
    image = picture(shape, dtype)
    before = image.copy()
    adjustment = Adjustment(crop, flip)
    result = adjustment.apply(image)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected(image, adjustment))
    np.testing.assert_array_equal(image, before)


def test_without_a_flip_nothing_is_copied() -> None:
    image = picture((7, 9, 3))
    assert AS_IT_IS.apply(image) is image
    assert np.shares_memory(Adjustment(Box(1, 2, 3, 4)).apply(image), image)


def test_a_flipped_part_is_a_copy_that_can_be_drawn_on() -> None:
    image = picture((7, 9, 3))
    result = Adjustment(Box(1, 2, 3, 4), Flip.BOTH).apply(image)
    assert result.flags["C_CONTIGUOUS"]
    assert not np.shares_memory(result, image)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))
def test_a_crop_is_of_its_size_or_refused(x: int, y: int, width: int, height: int) -> None:
    adjustment = Adjustment(Box(x, y, width, height))
    if x + width <= 9 and y + height <= 7:
        assert adjustment.apply(picture((7, 9))).shape == (height, width)
    else:
        with pytest.raises(FrameError, match="9 x 7"):
            adjustment.apply(picture((7, 9)))


def test_a_crop_outside_names_both_sizes() -> None:
    with pytest.raises(FrameError, match=r"100,50,800,600 .*900 x 650 px.* has 640 x 480 px"):
        Adjustment(Box(100, 50, 800, 600)).apply(np.zeros((480, 640, 3), np.uint8))


@pytest.mark.parametrize("shape", [(5,), (1, 2, 3, 4)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match=re.escape(str(list(shape)))):
        AS_IT_IS.apply(np.zeros(shape, np.uint8))


def test_a_box_reads_what_it_writes() -> None:
    assert Box.parse(" 100, 50,800 ,600 ") == Box(100, 50, 800, 600)
    assert Box.parse(str(Box(1, 2, 3, 4))) == Box(1, 2, 3, 4)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,3,3", "1.5,0,3,3"])
def test_another_text_is_no_crop(text: str) -> None:
    with pytest.raises(ConfigurationError, match="such as 100,50,800,600"):
        Box.parse(text)


@pytest.mark.parametrize("text", ["0,0,0,5", "0,0,5,0"])
def test_an_empty_crop_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the crop {text} cannot be"):
        Box.parse(text)


def test_negative_places_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the crop -1,0,3,3 cannot be"):
        Box(-1, 0, 3, 3)
