"""Picture files: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from patchline.runtime.errors import ImageReadError
from patchline.runtime.image_file import is_image, read_image

FORMATS = ["jpg", "png", "bmp", "tif", "webp"]


def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"part.{suffix}"
    assert cv2.imwrite(str(path), picture())
    assert np.abs(read_image(path).astype(int) - picture()).mean() < 6  # JPEG and WebP lose a bit


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_an_error_and_no_half_picture(
    tmp_path: Path, suffix: str, share: float
) -> None:
    path = tmp_path / f"part.{suffix}"
    cv2.imwrite(str(path), picture())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageReadError, match=rf"cannot read .*part\.{suffix}"):
        read_image(path)


def test_an_empty_a_missing_and_a_text_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "part.jpg"
    with pytest.raises(ImageReadError, match=r"part\.jpg: No such file"):
        read_image(path)
    path.touch()
    with pytest.raises(ImageReadError, match=r"part\.jpg: the file is empty"):
        read_image(path)
    path.write_text("not a picture")
    with pytest.raises(ImageReadError, match=r"part\.jpg: not a picture, or damaged"):
        read_image(path)
    with pytest.raises(ImageReadError, match="cannot read"):
        read_image(tmp_path)


def test_the_orientation_a_camera_notes_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "part.jpg"
    upright = Image.fromarray(picture()[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright.save(path, exif=exif)
    assert read_image(path).shape == (160, 120, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.PNG", True), ("a.jpeg", True), ("a.txt", False), ("._a.jpg", False), ("jpg", False)],
)
def test_pictures_are_known_by_name(name: str, expected: bool) -> None:
    assert is_image(Path(name)) is expected


def _jpeg(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    return path.read_bytes()


def test_a_jpeg_with_data_behind_its_end_is_whole(tmp_path: Path) -> None:
    (tmp_path / "phone.jpg").write_bytes(_jpeg(tmp_path) + bytes(9000))
    assert read_image(tmp_path / "phone.jpg").shape == (64, 64, 3)


def test_the_end_mark_of_a_thumbnail_does_not_make_a_cut_jpeg_whole(tmp_path: Path) -> None:
    whole = _jpeg(tmp_path)
    thumbnail = b"Exif\0\0" + whole[:200] + b"\xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "cut.jpg").write_bytes(whole[:2] + segment + whole[2 : len(whole) // 2])
    with pytest.raises(ImageReadError, match="truncated"):
        read_image(tmp_path / "cut.jpg")
    (tmp_path / "with.jpg").write_bytes(whole[:2] + segment + whole[2:])
    assert read_image(tmp_path / "with.jpg").shape == (64, 64, 3)


def test_a_png_with_data_behind_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    path.write_bytes(path.read_bytes() + bytes(200))
    assert read_image(path).shape == (8, 8, 3)
