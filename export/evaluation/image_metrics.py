"""The metrics over images; each picture counts once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchline.export.evaluation.ranking import Ranking, rank
from patchline.runtime.errors import DataError


def image_ranking(scores: npt.NDArray[np.float64], is_defective: npt.NDArray[np.bool_]) -> Ranking:
    """Evaluate image scores ``[N]`` against labels ``[N]``.

    Raises:
        DataError: the metrics are not defined: there are no pictures, only one kind, or all
            scores are identical.
    """
    if len(scores) == 0:
        raise DataError("there are no test pictures. Expected test/good and test/DEFECT folders")
    if is_defective.all() or not is_defective.any():
        found, lacking = ("defective", "good") if is_defective.all() else ("good", "defective")
        raise DataError(
            f"the test set has only {found} pictures ({len(scores)}): image metrics need "
            f"{lacking} ones beside them, in {'test/good' if lacking == 'good' else 'test/DEFECT'}"
        )
    if (scores == scores[0]).all():
        raise DataError(
            f"all {len(scores)} image scores are identical ({scores[0]:g}): they rank nothing, so "
            "image metrics are not given. The model tells no picture from another: export it again"
        )
    return rank(is_defective, scores)
