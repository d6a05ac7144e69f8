"""Which images are held out together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import DataError

FOLDS = 5
LEAST_TO_SPLIT = 4


def assign_folds(images: int, seed: int, folds: int = FOLDS) -> npt.NDArray[np.int64]:
    """Fold of each image, int64 ``[images]``, 0 to folds - 1, drawn at random in equal shares.

    Drawn rather than in order, because pictures are often sorted by time. Fewer images than folds
    make as many folds as images.

    Raises:
        DataError: fewer than two images; nothing can be held out.
    """
    if images < 2:
        raise DataError(
            f"{images} good picture is too few: at least 2 are needed to find a threshold, and "
            "20 or more to find a good one"
        )
    folds = min(folds, images)
    order = np.random.default_rng(seed).permutation(images)
    assigned = np.empty(images, np.int64)
    assigned[order] = np.arange(images) % folds
    return assigned


def assign_calibration(images: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which images are kept out of the bank for calibration, bool ``[images]``, drawn at random.

    Args:
        images: how many there are.
        share: of them, in (0, 1); at least two are kept out, and two left in.
        seed: of the draw.

    Raises:
        DataError: the share is outside (0, 1), or there are fewer than four images.
    """
    if not 0 < share < 1:
        raise DataError(f"the calibration split is {share}, expected a share between 0 and 1")
    if images < LEAST_TO_SPLIT:
        raise DataError(
            f"{images} good pictures are too few for a calibration split: at least "
            f"{LEAST_TO_SPLIT} are needed, and 100 or more to trust the threshold. Leave the split "
            "out: cross-fitting uses every picture twice"
        )
    count = min(max(round(share * images), 2), images - 2)
    held_out = np.zeros(images, np.bool_)
    held_out[np.random.default_rng(seed).permutation(images)[:count]] = True
    return held_out
