"""The region of interest: a picture that is white where the part is inspected."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import ConfigurationError, FrameError, ImageReadError
from patchline.runtime.image_file import read_image

MAP_MAXIMUM_SCORES = ("noise-response", "distance")
"""Scores whose image score is the largest value of the anomaly map; a part of it has one, too."""

WHITE = 128
"""Gray values from here on are inspected."""

LARGEST_STRETCH = 0.02
"""How far the aspect ratios of mask and picture may differ."""

_Inside = npt.NDArray[np.bool_]


class Mask:
    """Where a picture is inspected, in the frame of the judged picture (after flip and crop).

    It is stretched like the anomaly map, so that its size does not matter.

    Args:
        inside: bool ``[h, w]``, true somewhere.
        name: what it is, for messages.

    Raises:
        ConfigurationError: nothing is inspected.
    """

    def __init__(self, inside: _Inside, name: str) -> None:
        if not inside.any():
            raise ConfigurationError(
                f"the mask {name} inspects nothing: it is black everywhere. White is what is "
                "inspected"
            )
        self.name = name
        self._inside = inside
        self._at = functools.lru_cache(maxsize=1)(self._stretched)

    def check(self, picture_size: tuple[int, int]) -> None:
        """Refuse a picture of another shape.

        Args:
            picture_size: height and width of the judged picture in pixels.

        Raises:
            FrameError: its aspect ratio differs from the mask's by more than 2 %.
        """
        (height, width), (own_height, own_width) = picture_size, self._inside.shape
        stretch = own_width * height / (own_height * width)
        if max(stretch, 1 / stretch) > 1 + LARGEST_STRETCH:
            raise FrameError(
                f"the mask {self.name} is {own_width} x {own_height} and the picture, after flip "
                f"and crop, {width} x {height}: their aspect ratios differ. Draw the mask on a "
                "picture as it is judged"
            )

    def at(self, map_size: tuple[int, int]) -> _Inside:
        """Which values of a map ``[H, W]`` are inspected: all that touch a white pixel.

        Rather a value too many than one too few, so that no strip is too thin to be seen.
        """
        return self._at(*map_size)

    def apply(self, anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy of the map ``[H, W]`` that is 0 outside, the least value that a score has."""
        return np.where(self.at(_size(anomaly_map)), anomaly_map, np.float32(0))

    def _stretched(self, height: int, width: int) -> _Inside:
        corners = cv2.integral(self._inside.astype(np.uint8))
        top, bottom = _spans(height, self._inside.shape[0])
        left, right = _spans(width, self._inside.shape[1])
        white = corners[bottom][:, right] - corners[top][:, right]
        white -= corners[bottom][:, left] - corners[top][:, left]
        return np.asarray(white > 0)


def load_mask(path: Path) -> Mask:
    """Read a mask from a picture file of any size; white is inspected.

    Raises:
        ConfigurationError: it cannot be read, or is black everywhere.
    """
    try:
        picture = read_image(path)
    except ImageReadError as error:
        raise ConfigurationError(f"the mask: {error}") from error
    return Mask(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) >= WHITE, str(path))


def score_within(anomaly_map: npt.NDArray[np.float32], mask: Mask) -> float:
    """The image score of what is inspected: the largest value of the map ``[H, W]`` there.

    Right only for a score that :func:`check_score` lets through.
    """
    return float(anomaly_map[mask.at(_size(anomaly_map))].max())


def check_score(score: str, mask: Mask) -> None:
    """Refuse a mask for a model whose image score is not the largest value of its map.

    Raises:
        ConfigurationError: so it is.
    """
    if score not in MAP_MAXIMUM_SCORES:
        raise ConfigurationError(
            f"the mask {mask.name} cannot be used: the model's score is {score!r}, whose image "
            "score is not the largest value of the anomaly map, so that a part of the picture has "
            f"none. Export with --score {' or '.join(MAP_MAXIMUM_SCORES)}, or use a crop"
        )


def _size(anomaly_map: npt.NDArray[np.float32]) -> tuple[int, int]:
    height, width = anomaly_map.shape
    return height, width


def _spans(cells: int, pixels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pixels that each map cell touches, from and up to; in whole numbers."""
    edges = np.arange(cells + 1, dtype=np.int64) * pixels
    return edges[:-1] // cells, -(-edges[1:] // cells)
