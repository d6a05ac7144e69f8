"""The pictures of the page: a frame, its heat map, or why it was judged so, as JPEG."""

from __future__ import annotations

import enum
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import FrameError
from patchline.runtime.outputs.overlay import annotate, blend_heat, draw_contour
from patchline.runtime.preprocess import Frame, to_bgr8
from patchline.runtime.verdict import JudgedFrame

LARGEST_PX = 960
"""Of the longer side: enough for a page, and a small part of what a 4K picture costs."""

_LIVE_QUALITY, _EVENT_QUALITY = 78, 85
_INFLUENCE_OPACITY = 0.8
_FAINT = 100.0  # the part of the viridis colour map in use: teal to yellow


class PictureKind(str, enum.Enum):
    """What a picture shows."""

    PICTURE = "picture"
    """The frame as it was judged."""

    HEAT = "heat"
    """With the anomaly map and the contour of what lies above its threshold."""

    INFLUENCE = "influence"
    """With the influence map: which parts of it the score came from."""


def live_jpeg(judged: JudgedFrame, kind: PictureKind) -> bytes:
    """The picture of one kind, at most :data:`LARGEST_PX` wide and high.

    Raises:
        FrameError: the frame cannot be drawn.
    """
    frame = _shrink(to_bgr8(judged.captured.image))
    if kind is PictureKind.HEAT:
        frame = _with_heat(frame, judged)
    elif kind is PictureKind.INFLUENCE:
        frame = _with_influence(frame, judged.influence_map)
    return _encode(frame, _LIVE_QUALITY)


def event_jpeg(judged: JudgedFrame) -> bytes:
    """The annotated picture of an event, with its caption.

    Raises:
        FrameError: the frame cannot be drawn.
    """
    small = _shrink(to_bgr8(judged.captured.image))
    captured = replace(judged.captured, image=small)
    return _encode(annotate(replace(judged, captured=captured)), _EVENT_QUALITY)


def _shrink(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = LARGEST_PX / max(height, width)
    if scale >= 1:
        return frame
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _with_heat(frame: Frame, judged: JudgedFrame) -> Frame:
    anomaly_map = _fit(judged.anomaly_map, frame)
    relative = np.asarray(anomaly_map / max(judged.map_value, 1e-12), np.float32)
    picture = blend_heat(frame, relative)
    draw_contour(picture, anomaly_map >= judged.map_value)
    return picture


def _with_influence(frame: Frame, influence_map: npt.NDArray[np.float32]) -> Frame:
    share = np.clip(_fit(influence_map, frame), 0.0, 1.0)
    shades = (_FAINT + (255 - _FAINT) * share).astype(np.uint8)
    colors = cv2.applyColorMap(shades, cv2.COLORMAP_VIRIDIS)
    # On gray, so that no colour of the part is taken for influence.
    gray = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    alpha = (_INFLUENCE_OPACITY * share)[..., np.newaxis]
    return np.asarray(gray + alpha * (colors.astype(np.float32) - gray), np.uint8)


def _fit(values: npt.NDArray[np.float32], frame: Frame) -> npt.NDArray[np.float32]:
    height, width = frame.shape[:2]
    return np.asarray(
        cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _encode(picture: Frame, quality: int) -> bytes:
    is_encoded, content = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not is_encoded:
        raise FrameError("this OpenCV cannot write JPEG, so the dashboard has no pictures")
    return content.tobytes()
