"""Picture files -> frames; a truncated file is an error, not a grey half-picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from patchline.runtime.errors import FrameError, ImageReadError
from patchline.runtime.preprocess import Frame, to_bgr8

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File names that are taken for pictures, in lower case."""

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", 0xDA, b"\xff\xd9"
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
    return decode_image(data, str(path), "the file")


def decode_image(data: bytes, name: str, what: str = "the picture") -> Frame:
    """Decode an encoded picture of any mode as uint8 ``[H, W, 3]`` BGR; see :func:`read_image`.

    Args:
        data: a whole JPEG, PNG, BMP or whatever OpenCV knows.
        name: of where it came from, for the message.
        what: it is, for the message.

    Raises:
        ImageReadError: it is truncated or not a picture.
    """
    if _is_truncated(data):
        raise ImageReadError(f"cannot read {name}: {what} is truncated")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageReadError(f"cannot read {name}: {error.err}") from error
    if image is None:
        raise ImageReadError(f"cannot read {name}: not a picture, or damaged")
    try:
        return to_bgr8(image)
    except FrameError as error:
        raise ImageReadError(f"cannot read {name}: {error}") from error


def _is_truncated(data: bytes) -> bool:
    # OpenCV decodes what is left of a cut JPEG or PNG and fills the rest, without a word.
    if data.startswith(_JPEG_START):
        start = _jpeg_scan(data)
        end = data.find(_JPEG_END, start)
        # Another picture that begins in this one's pixels: a stream that lost its place.
        return end < 0 or data.find(_JPEG_START, start, end) >= 0
    if data.startswith(_PNG_START):
        return not _png_ends(data)
    return False


def _jpeg_scan(data: bytes) -> int:
    """Where the pixels begin: past the headers, whose thumbnail has an end mark of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_SCAN:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _png_ends(data: bytes) -> bool:
    at = len(_PNG_START)
    while at + 12 <= len(data):  # length, type, checksum
        if data[at + 4 : at + 8] == _PNG_END:
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False
