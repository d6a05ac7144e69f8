"""Ground-truth masks: read at their own size, any non-zero pixel is defect, nearest neighbour."""

from __future__ import annotations

import enum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import DataError, ImageReadError
from patchline.runtime.image_file import read_image

Mask = npt.NDArray[np.bool_]
"""bool ``[H, W]``, true where the picture is defective."""

_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


class MaskFault(enum.Enum):
    """What can be wrong with a mask: what was found, and what to do."""

    MISSING = (
        "defective pictures without a mask",
        "Expected ground_truth/DEFECT/NAME_mask.png for each",
    )
    WITHOUT_PICTURE = (
        "masks without a test picture",
        "Expected test/DEFECT/NAME.png for each, or no mask",
    )
    SEVERAL = ("test pictures with several masks", "Keep one of them")
    UNREADABLE = ("masks that cannot be read", "Replace them")
    OF_GOOD = (
        "masks that mark a defect in a good picture",
        "Move the picture to a folder named after its defect, or remove the mask",
    )
    OTHER_SIZE = (
        "masks of another size than their picture (height x width)",
        "A mask has the size of its picture",
    )
    ALL_ZERO = (
        "masks that are all zero",
        "Mark the defect with any other value, or move the picture to test/good",
    )
    VANISHES = (
        "masks whose defect is gone at the size of the model",
        "It is smaller than a pixel there: export a larger model, or leave the picture out",
    )

    @property
    def what(self) -> str:
        """What was found, in the plural."""
        return self.value[0]

    @property
    def remedy(self) -> str:
        """What was expected or can be done."""
        return self.value[1]


def read_mask(path: Path, image_size: tuple[int, int], model_size: ModelSize) -> Mask:
    """Read one mask and bring it to model size.

    Args:
        path: the mask file.
        image_size: (height, width) of its picture in pixels.
        model_size: of the anomaly maps that it is compared with.

    Returns:
        bool ``[model_size.height, model_size.width]``, true where any channel but alpha is not
        zero; at least one pixel is true.

    Raises:
        ImageReadError: the file is missing, truncated, no picture, or lossily compressed.
        DataError: its size is not the picture's, or no pixel is defective; says which.
    """
    own = read_own_mask(path)
    fault = check_mask(own, image_size, model_size)
    if fault is not None:
        raise DataError(f"{fault.what}: {path}. {fault.remedy}")
    return shrink(own, model_size)


def read_own_mask(path: Path) -> Mask:
    """Read a mask of any mode (1, 8 or 16 bit, palette, RGBA) at its own size, bool ``[H, W]``.

    Alpha is dropped, as it is in pictures.

    Raises:
        ImageReadError: the file is missing, truncated, no picture, or lossily compressed: such
            compression leaves values beside 0 and the largest one around every outline.
    """
    read_image(path)  # for what it refuses; its 8 bits would lose the small values of 16
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if pixels is None:
        raise ImageReadError(f"cannot read {path}: not a picture, or damaged")
    if path.suffix.lower() in _LOSSY and len(np.unique(pixels)) > 2:
        raise ImageReadError(
            f"cannot read {path}: lossy compression has left grey values around the defect; "
            "masks are saved as PNG"
        )
    return np.asarray(pixels.any(axis=2))


def check_mask(own: Mask, image_size: tuple[int, int], model_size: ModelSize) -> MaskFault | None:
    """What is wrong with the mask ``[h, w]`` of a defective picture of ``image_size``, if any."""
    if own.shape != image_size:
        return MaskFault.OTHER_SIZE
    if not own.any():
        return MaskFault.ALL_ZERO
    if not shrink(own, model_size).any():
        return MaskFault.VANISHES
    return None


def shrink(own: Mask, size: ModelSize) -> Mask:
    """Bring a mask ``[h, w]`` to ``[size.height, size.width]`` by nearest neighbour.

    A pixel takes the value under its centre, which is where the picture's own resize
    (:mod:`patchline.runtime.preprocess`) puts it.
    """
    rows, columns = _centres(own.shape[0], size.height), _centres(own.shape[1], size.width)
    return own[np.ix_(rows, columns)]


def _centres(length: int, target: int) -> npt.NDArray[np.int64]:
    # Integers: (i + 1/2) * length / target, with no rounding to differ between machines.
    return (2 * np.arange(target, dtype=np.int64) + 1) * length // (2 * target)
