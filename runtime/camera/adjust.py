"""Flip and crop: which part of a camera's picture is judged, and which way round."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.camera.options import Flip
from patchline.runtime.errors import ConfigurationError, FrameError

_BOX = re.compile(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*")


_FLIP_CODES = {Flip.HORIZONTAL: 1, Flip.VERTICAL: 0, Flip.BOTH: -1}


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture.

    Attributes:
        x: first column, from 0.
        y: first row, from 0.
        width: in pixels, at least 1.
        height: likewise.

    Raises:
        ConfigurationError: outside these ranges.
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.x, self.y) < 0 or min(self.width, self.height) < 1:
            raise ConfigurationError(
                f"the crop {self} cannot be: expected x,y,width,height in pixels, with x and y "
                "from 0 and width and height from 1"
            )

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``100,50,800,600``: x, y, width, height.

        Raises:
            ConfigurationError: it is not of that form, or out of range.
        """
        found = _BOX.fullmatch(text)
        if found is None:
            raise ConfigurationError(
                f"{text!r} is no crop: expected x,y,width,height in pixels, such as 100,50,800,600"
            )
        return cls(*(int(number) for number in found.groups()))


@dataclass(frozen=True)
class Adjustment:
    """What is done to each picture of a camera before anything else looks at it.

    Attributes:
        crop: of the flipped picture; ``None`` for all of it.
        flip: comes first.
    """

    crop: Box | None = None
    flip: Flip = Flip.NONE

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Flip, then crop.

        Args:
            image: ``[H, W]`` or ``[H, W, C]`` of any dtype that a camera gives.

        Returns:
            Without a flip the image itself or a view of it; with one a copy of the part only.

        Raises:
            FrameError: the crop does not lie inside the picture, or the array is no picture.
        """
        if image.ndim not in (2, 3):
            raise FrameError(f"expected a picture [H, W] or [H, W, C], found {list(image.shape)}")
        part = image if self.crop is None else self._cut(image, self.crop)
        if self.flip is Flip.NONE:
            return part
        # OpenCV drops an axis of one channel.
        flipped = cv2.flip(part, _FLIP_CODES[self.flip]).reshape(part.shape)
        return np.asarray(flipped)

    def _cut(self, image: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
        height, width = image.shape[:2]
        if box.x + box.width > width or box.y + box.height > height:
            raise FrameError(
                f"the crop {box} (x,y,width,height) reaches to {box.x + box.width} x "
                f"{box.y + box.height} px (width x height), and the picture has {width} x {height} "
                "px: make it smaller, or set the camera's size"
            )
        # The box is one of the flipped picture; cutting first spares flipping the rest.
        left, top = box.x, box.y
        if self.flip in (Flip.HORIZONTAL, Flip.BOTH):
            left = width - box.x - box.width
        if self.flip in (Flip.VERTICAL, Flip.BOTH):
            top = height - box.y - box.height
        return image[top : top + box.height, left : left + box.width]


AS_IT_IS = Adjustment()
"""Nothing is flipped or cropped."""
