"""Where in a picture the anomaly lies: connected parts of the map above its threshold."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.decisions.event import Region

MOST_REGIONS = 20

_BELOW = 0  # the label of what lies below the value
_NEIGHBOURHOOD = 8  # parts that touch at a corner are one
_SIDES = [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]


def find_regions(
    anomaly_map: npt.NDArray[np.float32],
    map_value: float,
    picture_size: tuple[int, int],
    most: int = MOST_REGIONS,
) -> tuple[Region, ...]:
    """Boxes around the connected parts of a map that are at or above a value.

    Args:
        anomaly_map: float32 ``[H, W]`` at model size.
        map_value: see :attr:`~patchline.runtime.verdict.JudgedFrame.map_value`.
        picture_size: height and width in pixels of the picture that the boxes are for.
        most: so many are given at most.

    Returns:
        Boxes that cover their part and lie inside the picture, largest peak first; of equal
        peaks the upper one first, then the left one.
    """
    inside = np.asarray(anomaly_map >= map_value)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=_NEIGHBOURHOOD
    )
    peaks = _peaks(anomaly_map[inside], labels[inside], count)
    order = np.lexsort((boxes[:, cv2.CC_STAT_LEFT], boxes[:, cv2.CC_STAT_TOP], -peaks))
    shown = [at for at in order.tolist() if at != _BELOW][:most]
    return tuple(
        _region(boxes[at, _SIDES].tolist(), float(peaks[at]), anomaly_map.shape, picture_size)
        for at in shown
    )


def _peaks(
    values: npt.NDArray[np.float32], labels: npt.NDArray[Any], count: int
) -> npt.NDArray[np.float32]:
    peaks = np.full(count, -np.inf, np.float32)
    ascending = np.argsort(values)
    peaks[labels[ascending]] = values[ascending]  # the last one that is assigned stays
    return peaks


def _region(
    box: list[int], peak: float, map_shape: tuple[int, ...], picture_size: tuple[int, int]
) -> Region:
    left, top, width, height = box
    x, right = _span(left, left + width, map_shape[1], picture_size[1])
    y, bottom = _span(top, top + height, map_shape[0], picture_size[0])
    return Region(x, y, right - x, bottom - y, peak)


def _span(start: int, end: int, cells: int, pixels: int) -> tuple[int, int]:
    """Of map cells, the pixels that they touch; in whole numbers, so that nothing is rounded."""
    return start * pixels // cells, -(-end * pixels // cells)
