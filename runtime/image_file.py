"""Picture files -> frames; a truncated file is an error, not a grey half-picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from patchline.runtime.errors import FrameError, ImageReadError
from patchline.runtime.preprocess import Frame, to_bgr8

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File names that are taken for pictures, in lower case."""

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


def is_image(path: Path) -> bool:
    """Whether a path is a picture file by its name; hidden files (``._x.jpg``) are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_image(path: Path) -> Frame:
    """Read a picture of any mode (grayscale, palette, RGBA, 16-bit) as uint8 ``[H, W, 3]`` BGR.

    The EXIF orientation is applied and alpha is dropped.

    Raises:
        ImageReadError: the file is missing, empty, truncated or not a picture; it is named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise ImageReadError(f"cannot read {path}: the file is empty")
    if _is_truncated(data):
        raise ImageReadError(f"cannot read {path}: the file is truncated")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageReadError(f"cannot read {path}: {error.err}") from error
    if image is None:
        raise ImageReadError(f"cannot read {path}: not a picture, or damaged")
    try:
        return to_bgr8(image)
    except FrameError as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error


def _is_truncated(data: bytes) -> bool:
    # OpenCV decodes what is left of a cut JPEG or PNG and fills the rest, without a word.
    if data.startswith(_JPEG_START):
        return _JPEG_END not in data[-4096:]
    if data.startswith(_PNG_START):
        return _PNG_END not in data[-64:]
    return False
