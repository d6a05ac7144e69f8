"""The four pictures of a gallery item, and the colour scales they are read with.

The heat map is the camera's own (:mod:`patchline.runtime.outputs.overlay`): its colours are
relative to the threshold, so that they mean the same on every picture and on the line.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import ModelSize
from patchline.runtime.outputs.overlay import blend_heat, draw_contour
from patchline.runtime.preprocess import Frame, resize

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

HEAT_RANGE = (0.5, 2.0)
"""Where the legend of the heat map begins and ends, in parts of the map threshold."""

_WIDEST_PX = 320
_JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)
_INFLUENCE_COLORS = cv2.COLORMAP_CIVIDIS  # made for eyes that do not tell red from green
_TRUTH_COLOR, _TRUTH_OPACITY = (230, 50, 170), 0.6  # violet: neither heat nor, mostly, a part
_LEGEND_STEPS, _LEGEND_GRAY = 16, 215


def heat_tile(frame: Frame, anomaly_map: Map, map_value: float) -> Frame:
    """The frame under its heat map, with the contour at ``map_value``.

    Args:
        frame: uint8 ``[H, W, 3]`` BGR.
        anomaly_map: float32 ``[H, W]``.
        map_value: map values at or above it are inside the contour.

    Returns:
        uint8 ``[H, W, 3]`` BGR; the frame itself is not touched.
    """
    picture = blend_heat(frame, np.asarray(anomaly_map / max(map_value, 1e-12), np.float32))
    draw_contour(picture, anomaly_map >= map_value)
    return picture


def influence_tile(influence_map: Map) -> Frame:
    """The influence map float32 ``[H, W]`` in colours of the fixed range 0 to 1, BGR."""
    shades = np.rint(255 * np.clip(influence_map, 0.0, 1.0)).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(shades, _INFLUENCE_COLORS), np.uint8)


def truth_tile(frame: Frame, mask: Mask) -> Frame:
    """The frame uint8 ``[H, W, 3]`` BGR with the mask bool ``[H, W]`` filled and outlined."""
    picture: Frame = np.array(frame)
    around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    draw_contour(picture, around.astype(np.bool_))
    fill = np.asarray(_TRUTH_COLOR, np.float32)
    # From the frame and last, or the line would hide a defect of a few pixels.
    picture[mask] = (frame[mask] * (1 - _TRUTH_OPACITY) + fill * _TRUTH_OPACITY).astype(np.uint8)
    return picture


def data_uri(picture: Frame) -> str:
    """A picture uint8 ``[H, W, 3]`` BGR as a JPEG ``data:`` address, at most 320 px wide."""
    height, width = picture.shape[:2]
    if width > _WIDEST_PX:
        low = ModelSize(height=max(1, round(height * _WIDEST_PX / width)), width=_WIDEST_PX)
        picture = resize(picture, low)
    is_encoded, content = cv2.imencode(".jpg", picture, _JPEG_QUALITY)
    if not is_encoded:
        raise AssertionError(f"OpenCV did not encode a picture of {picture.shape}")
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def heat_colors() -> list[str]:
    """CSS colours of the heat map over :data:`HEAT_RANGE`, as they look on a light part."""
    strip = np.full((1, _LEGEND_STEPS, 3), _LEGEND_GRAY, np.uint8)
    ramp = np.linspace(*HEAT_RANGE, _LEGEND_STEPS, dtype=np.float32)[np.newaxis]
    return _css_colors(blend_heat(strip, ramp))


def influence_colors() -> list[str]:
    """CSS colours of the influence map from 0 to 1."""
    ramp = np.linspace(0.0, 1.0, _LEGEND_STEPS, dtype=np.float32)[np.newaxis]
    return _css_colors(influence_tile(ramp))


def truth_color() -> str:
    """CSS colour of the ground truth."""
    return _css_colors(np.array([[_TRUTH_COLOR]], np.uint8))[0]


def _css_colors(strip: Frame) -> list[str]:
    return [f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in strip[0]]
