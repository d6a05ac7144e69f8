"""The annotated picture: where the part is anomalous, how much, and what was decided."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.outputs.caption import draw_caption
from patchline.runtime.preprocess import Frame, to_bgr8
from patchline.runtime.verdict import JudgedFrame

FIRST_TINT, FULL_TINT = 0.75, 1.75
"""Map values, in parts of the map threshold, at which colour begins and is strongest."""

_OPACITY = 0.6
_COLD, _HOT = 150.0, 225.0  # the part of the turbo colour map in use: yellow to red
_LINE_SHARE = 1 / 360
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)


def annotate(judged: JudgedFrame) -> Frame:
    """Draw the heat map, its contour and a caption on the frame.

    The colours are on a fixed scale relative to the map's threshold, never on the picture's own
    range: a good part stays clean, and the same colour means the same on every picture.

    Args:
        judged: the frame, of any kind that ``preprocess`` takes, with its map and verdict.

    Returns:
        uint8 ``[H, W, 3]`` BGR of the frame's own size; the frame itself is not touched.
    """
    frame = to_bgr8(judged.captured.image)
    height, width = frame.shape[:2]
    anomaly_map = cv2.resize(judged.anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    map_value = judged.map_value
    picture = blend_heat(frame, np.asarray(anomaly_map / max(map_value, 1e-12), np.float32))
    draw_contour(picture, anomaly_map >= map_value)
    draw_caption(picture, judged.verdict)
    return picture


def blend_heat(frame: Frame, relative_map: npt.NDArray[np.float32]) -> Frame:
    """A copy of ``frame`` tinted where the map ``[H, W]``, in units of its threshold, is high."""
    picture: Frame = np.array(frame)
    # Only the tinted part is worked on: on a 4K frame that is ten times less to do.
    left, top, width, height = cv2.boundingRect((relative_map > FIRST_TINT).astype(np.uint8))
    if width == 0:
        return picture
    box = np.s_[top : top + height, left : left + width]
    picture[box] = _tint(picture[box], relative_map[box])
    return picture


def _tint(frame: Frame, relative_map: npt.NDArray[np.float32]) -> Frame:
    strength = np.clip((relative_map - FIRST_TINT) / (FULL_TINT - FIRST_TINT), 0.0, 1.0)
    shades = (_COLD + (_HOT - _COLD) * strength).astype(np.uint8)
    colors = cv2.applyColorMap(shades, cv2.COLORMAP_TURBO)
    # The root lets a map value just above the threshold be seen already.
    alpha = (_OPACITY * np.sqrt(strength))[..., np.newaxis]
    tinted = frame + alpha * (colors.astype(np.float32) - frame)
    return np.asarray(tinted, np.uint8)


def draw_contour(picture: Frame, inside: npt.NDArray[np.bool_]) -> None:
    """Draw the outline of ``inside [H, W]`` into ``picture``."""
    outlines, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    line_px = max(1, round(min(picture.shape[:2]) * _LINE_SHARE))
    # White on black is seen on any part and any tint.
    cv2.drawContours(picture, outlines, -1, _DARK, line_px + 2, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, _LIGHT, line_px, cv2.LINE_AA)
