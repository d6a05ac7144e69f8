"""Camera frame -> model input: the only resize in the project.

Fit, calibration, evaluation and the camera all come through here, because a score that was
fitted with one resizer and served with another is wrong without anyone noticing (DESIGN
section 2). What the graph does itself (colour order, scaling, normalisation) is not done here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import FrameError

Frame = npt.NDArray[np.uint8]
"""uint8 ``[H, W, 3]``, BGR, 0 to 255."""

RESIZE = "per side: area when shrinking, bilinear when enlarging"
"""The rule of :func:`resize`, as the manifest records it."""

_CHANNELS = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}


def preprocess(image: npt.NDArray[Any], size: ModelSize) -> Frame:
    """Make model input from whatever a camera or file gives.

    Args:
        image: uint8 or uint16, ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` (BGR) or
            ``[H, W, 4]`` (BGRA, alpha is dropped).
        size: the model's height and width in pixels.

    Returns:
        uint8 ``[size.height, size.width, 3]``, BGR, contiguous.

    Raises:
        FrameError: another dtype, another number of channels, or no pixels.
    """
    return resize(to_bgr8(image), size)


def to_bgr8(image: npt.NDArray[Any]) -> Frame:
    """Bring grayscale, BGRA and 16-bit images to uint8 ``[H, W, 3]`` BGR.

    16-bit values are scaled by the fixed factor 255 / 65535, never by the image's own range: one
    bright pixel must not change how the rest of the frame is judged.

    Raises:
        FrameError: another dtype, another number of channels, or no pixels.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise FrameError(f"expected an image [H, W] or [H, W, C], got shape {image.shape}")
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    if image.dtype != np.uint8:
        raise FrameError(f"expected 8- or 16-bit unsigned pixels, got {image.dtype}")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return np.ascontiguousarray(image)
    if channels not in _CHANNELS:
        raise FrameError(f"expected 1, 3 or 4 channels, got {channels}")
    return cv2.cvtColor(image, _CHANNELS[channels]).astype(np.uint8, copy=False)


def resize(frame: Frame, size: ModelSize) -> Frame:
    """Resize to the model's size; the aspect ratio is not kept.

    A side that shrinks is averaged over areas (no aliasing), one that grows is interpolated.
    """
    height, width = frame.shape[:2]
    if (height, width) == (size.height, size.width):
        return frame
    # In two steps: OpenCV's area rule quietly turns bilinear when one of the sides grows.
    smaller = min(width, size.width), min(height, size.height)
    frame = cv2.resize(frame, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.resize(frame, (size.width, size.height), interpolation=cv2.INTER_LINEAR).astype(
        np.uint8, copy=False
    )


def check_frames(frames: npt.NDArray[Any], size: ModelSize) -> None:
    """Refuse anything but a batch of frames at model size.

    Raises:
        FrameError: not uint8 ``[B, size.height, size.width, 3]`` with B at least 1.
    """
    expected = (size.height, size.width, 3)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != expected:
        raise FrameError(
            f"expected uint8 [B, {size.height}, {size.width}, 3], "
            f"got {frames.dtype} {list(frames.shape)}"
        )
    if frames.shape[0] == 0:
        raise FrameError("expected at least one frame, got an empty batch")
