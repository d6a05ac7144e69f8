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
