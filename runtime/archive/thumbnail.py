"""The anomaly map of a picture as a small PNG, on a scale that is the same for all of them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_AT_THRESHOLD = 128.0  # the shade of the map's threshold; twice the threshold and more is white


def thumbnail(
    anomaly_map: npt.NDArray[np.float32], map_value: float, picture_size: tuple[int, int], px: int
) -> bytes:
    """A gray PNG with the sides of the picture in proportion.

    Args:
        anomaly_map: float32 ``[H, W]`` at model size.
        map_value: the map's threshold; its shade is 128.
        picture_size: height and width of the picture in pixels.
        px: the longer side.
    """
    height, width = picture_size
    scale = px / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(anomaly_map, sides, interpolation=cv2.INTER_AREA)
    shades = np.clip(small * (_AT_THRESHOLD / max(map_value, 1e-12)), 0.0, 255.0)
    _, encoded = cv2.imencode(".png", np.rint(shades).astype(np.uint8))
    return bytes(encoded)
