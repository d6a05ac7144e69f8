"""Masks of every mode, at their own size, and to model size by nearest neighbour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from patchline.export.evaluation.masks import read_mask, read_own_mask, shrink
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import DataError, ImageReadError

from .lamp import write

TRUTH = np.zeros((12, 20), bool)
TRUTH[3:5, 4:9] = True
TRUTH[10, 17] = True
ONE = TRUTH.astype(np.uint8)


def palette(path: Path) -> None:
    image = PIL.Image.frombytes("P", (20, 12), ONE.tobytes())
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


def pillow(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: PIL.Image.fromarray(pixels).save(path)


def opencv(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: assert_written(path, pixels)


def assert_written(path: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(path), pixels)


OPAQUE = np.full_like(ONE, 255)
MODES: dict[str, Callable[[Path], None]] = {
    "0 and 255.png": opencv(ONE * 255),
    "0 and 1.png": opencv(ONE),
    "16 bit, 0 and 1.png": opencv(ONE.astype(np.uint16)),
    "16 bit, 0 and 1.tif": opencv(ONE.astype(np.uint16)),
    "1 bit.png": pillow(TRUTH),
    "1 bit.tif": pillow(TRUTH),
    "1 bit.bmp": pillow(TRUTH),
    "palette.png": palette,
    "one channel.png": opencv(np.dstack([ONE * 0, ONE * 0, ONE])),
    "opaque.png": opencv(np.dstack([ONE, ONE, ONE, OPAQUE])),
    "gray and opaque.png": pillow(np.dstack([ONE, OPAQUE])),
    "lossless.webp": lambda path: PIL.Image.fromarray(ONE * 255).save(path, lossless=True),
}


@pytest.mark.parametrize("name", MODES)
def test_any_nonzero_pixel_is_defect_in_every_mode(tmp_path: Path, name: str) -> None:
    MODES[name](tmp_path / name)
    mask = read_own_mask(tmp_path / name)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, TRUTH)


def test_alpha_alone_marks_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", np.dstack([ONE * 0] * 3 + [ONE * 255]))
    with pytest.raises(DataError, match=r"all zero: .*m\.png\. Mark the defect"):
        read_mask(path, (12, 20), ModelSize(height=12, width=20))


@pytest.mark.parametrize(("height", "width"), [(12, 20), (5, 7), (24, 40), (31, 9), (1, 1)])
def test_nearest_neighbour_takes_the_value_under_the_centre(height: int, width: int) -> None:
    own = np.random.default_rng(3).random((12, 20)) < 0.4
    expected = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            expected[row, column] = own[
                int((row + 0.5) * 12 / height), int((column + 0.5) * 20 / width)
            ]
    found = shrink(own, ModelSize(height=height, width=width))
    assert np.array_equal(found, expected)


def test_a_mask_at_model_size_is_what_the_file_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", ONE)
    found = read_mask(path, (12, 20), ModelSize(height=6, width=10))
    assert found.shape == (6, 10)
    assert np.array_equal(found, TRUTH[1::2, 1::2])


def test_another_size_than_the_pictures_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", ONE)
    with pytest.raises(DataError, match=r"another size than their picture .*m\.png"):
        read_mask(path, (20, 12), ModelSize(height=12, width=20))


def test_a_defect_that_vanishes_at_model_size_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[0, 0] = 255
    path = write(tmp_path / "m.png", pixels)
    with pytest.raises(DataError, match="gone at the size of the model"):
        read_mask(path, (64, 64), ModelSize(height=16, width=16))
    assert read_mask(path, (64, 64), ModelSize(height=64, width=64)).sum() == 1


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_gray_values_of_lossy_compression_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    PIL.Image.fromarray(np.kron(ONE, np.ones((5, 5), np.uint8)) * 255).save(path, quality=40)
    with pytest.raises(ImageReadError, match=r"lossy compression .* saved as PNG"):
        read_own_mask(path)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"no picture", "not a picture"), (None, "No such file")]
)
def test_an_unreadable_mask_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "m.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"m\.png: .*{says}"):
        read_own_mask(path)


def test_a_truncated_mask_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", ONE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageReadError, match="truncated"):
        read_own_mask(path)
