"""Which images are held out together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchline.runtime.errors import DataError

FOLDS = 5


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
