"""The only resize: every kind of camera frame becomes the same kind of model input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import FrameError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import check_frames, preprocess, resize, to_bgr8

SIZE = ModelSize(height=32, width=40)
RNG_SHAPE = (50, 60)


def noise(*shape: int, dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("shape", [RNG_SHAPE, (*RNG_SHAPE, 1), (*RNG_SHAPE, 3), (*RNG_SHAPE, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_frame_becomes_model_input(shape: tuple[int, ...], dtype: Any) -> None:
    frame = preprocess(noise(*shape, dtype=dtype), SIZE)
    assert (frame.shape, frame.dtype) == ((32, 40, 3), np.uint8)
    assert frame.flags.c_contiguous


def test_gray_is_repeated_and_alpha_is_dropped() -> None:
    gray, bgra = noise(*RNG_SHAPE), noise(*RNG_SHAPE, 4)
    for channel in range(3):
        np.testing.assert_array_equal(to_bgr8(gray)[..., channel], gray)
        np.testing.assert_array_equal(to_bgr8(gray[..., None])[..., channel], gray)
    np.testing.assert_array_equal(to_bgr8(bgra), bgra[..., :3])


def test_16_bits_are_scaled_by_a_fixed_factor() -> None:
    image = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    np.testing.assert_array_equal(to_bgr8(image)[0, :, 0], [0, 1, 128, 255])
    # One bright pixel more must not change the others.
    dark = np.full((4, 4), 1000, np.uint16)
    spotted = dark.copy()
    spotted[0, 0] = 65535
    np.testing.assert_array_equal(to_bgr8(spotted)[1:], to_bgr8(dark)[1:])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int16),
        np.zeros((4, 4), np.bool_),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_camera_frame_is_refused(image: Any) -> None:
    with pytest.raises(FrameError, match="expected"):
        preprocess(image, SIZE)


def test_a_frame_of_the_models_size_is_not_touched() -> None:
    frame = noise(32, 40, 3)
    assert resize(frame, SIZE) is frame


def test_shrinking_averages_areas() -> None:
    frame = noise(64, 80, 3)
    blocks = frame.reshape(32, 2, 40, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(frame, SIZE), blocks, atol=0.51)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 20), (31, 400), (500, 40)])
def test_every_size_becomes_the_models(height: int, width: int) -> None:
    assert resize(noise(height, width, 3), SIZE).shape == (32, 40, 3)


def test_a_strided_view_is_a_frame() -> None:
    image = noise(100, 120, 3)
    view = image[::2, ::-2]
    np.testing.assert_array_equal(preprocess(view, SIZE), preprocess(view.copy(), SIZE))


def write_gray(path: Path, bgr: Any) -> None:
    cv2.imwrite(str(path), bgr[..., 0])


def write_rgba(path: Path, bgr: Any) -> None:
    alpha = np.full((*bgr.shape[:2], 1), 128, np.uint8)
    cv2.imwrite(str(path), np.concatenate([bgr, alpha], axis=2))


def write_16_bit(path: Path, bgr: Any) -> None:
    cv2.imwrite(str(path), bgr.astype(np.uint16) * 257)


def write_palette(path: Path, bgr: Any) -> None:
    palette = Image.fromarray(np.ascontiguousarray(bgr[..., 0])).convert("P")
    palette.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    palette.save(path)


@pytest.mark.parametrize("write", [write_gray, write_rgba, write_16_bit, write_palette])
def test_a_file_of_any_mode_gives_what_the_same_pixels_give_in_memory(
    tmp_path: Path, write: Any
) -> None:
    # Gray pixels, so that each mode can hold them exactly.
    frame = to_bgr8(noise(*RNG_SHAPE))
    write(tmp_path / "part.png", frame)
    read = preprocess(read_image(tmp_path / "part.png"), SIZE)
    np.testing.assert_array_equal(read, preprocess(frame, SIZE))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 32, 40, 3), np.float32),
        np.zeros((32, 40, 3), np.uint8),
        np.zeros((1, 40, 32, 3), np.uint8),
        np.zeros((1, 32, 40, 4), np.uint8),
        np.zeros((0, 32, 40, 3), np.uint8),
    ],
)
def test_a_batch_that_does_not_fit_the_model_is_refused(frames: Any) -> None:
    with pytest.raises(FrameError, match="expected"):
        check_frames(frames, SIZE)
    check_frames(np.zeros((2, 32, 40, 3), np.uint8), SIZE)


def test_a_side_that_shrinks_is_averaged_also_where_the_other_one_grows() -> None:
    stripes = np.zeros((8, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize(stripes, ModelSize(height=16, width=64))
    assert (resized == 100).all()
