"""Example pictures for a tracker: what the camera saw, beside where it looks anomalous."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import FrameError
from patchline.runtime.outputs.overlay import blend_heat, draw_contour
from patchline.runtime.preprocess import to_bgr8

LONGEST_PX = 512
"""Larger frames are shrunk to it: these pictures are looked at in a browser."""


def example_picture(
    frame: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], map_threshold: float
) -> npt.NDArray[np.uint8]:
    """The frame, and at its right the frame with the heat map and its contour.

    The colours are those of ``run-camera``: on a fixed scale relative to the map's threshold.

    Args:
        frame: ``[H, W, 3]`` BGR, or of another kind that ``preprocess`` takes.
        anomaly_map: float32 ``[h, w]`` of the frame's view, of any size.
        map_threshold: map values at or above it are inside the contour.

    Returns:
        uint8 ``[H', 2 W', 3]`` RGB; neither side of the frame is longer than :data:`LONGEST_PX`.

    Raises:
        FrameError: no such frame, or a map of other than two axes.
    """
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise FrameError(f"expected an anomaly map [h, w], got shape {anomaly_map.shape}")
    shown = _shrunk(to_bgr8(frame))
    height, width = shown.shape[:2]
    values = np.asarray(anomaly_map, np.float32)
    values = np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))
    heated = blend_heat(shown, np.asarray(values / max(map_threshold, 1e-12), np.float32))
    draw_contour(heated, values >= map_threshold)
    both = cv2.cvtColor(np.hstack((shown, heated)), cv2.COLOR_BGR2RGB)
    return np.asarray(both, np.uint8)


def _shrunk(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = LONGEST_PX / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = tuple(max(1, round(side * scale)) for side in frame.shape[1::-1])
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
