"""Labelled pictures, a folder per kind, and the threshold that separates them best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import LabelledThreshold
from patchline.runtime.errors import DataError
from patchline.runtime.image_file import is_image

GOOD = "good"


@dataclass(frozen=True)
class LabelledPicture:
    """One labelled picture.

    Attributes:
        path: the picture.
        defect: name of its folder; ``good`` for good ones.
    """

    path: Path
    defect: str

    @property
    def is_defective(self) -> bool:
        """Whether the picture is labelled defective."""
        return self.defect != GOOD


def labelled_folder(folder: Path) -> list[LabelledPicture]:
    """Pictures in the sub-folders of ``folder`` (or of its ``test``), good ones first.

    Raises:
        DataError: no such folder, or it holds only one kind of picture (says which).
    """
    if not folder.is_dir():
        raise DataError(f"the folder of labelled pictures {folder} does not exist")
    test = folder / "test"
    pictures = pictures_by_kind(test if test.is_dir() else folder)
    kinds = {picture.is_defective for picture in pictures}
    if kinds != {True, False}:
        found = "no picture" if not kinds else "defective ones" if True in kinds else "good ones"
        raise DataError(
            f"labelled pictures need a folder {GOOD} and at least one folder of defective ones; "
            f"{folder} holds {found}{' only' if kinds else ''}"
        )
    return pictures


def pictures_by_kind(folder: Path) -> list[LabelledPicture]:
    """Pictures of every sub-folder of ``folder``, good ones first, else by name."""
    kinds = sorted((path for path in folder.iterdir() if path.is_dir()), key=_good_first)
    return [
        LabelledPicture(path, kind.name)
        for kind in kinds
        for path in sorted(path for path in kind.iterdir() if path.is_file() and is_image(path))
    ]


def f1_max_threshold(
    scores: npt.NDArray[np.float64], is_defective: npt.NDArray[np.bool_]
) -> LabelledThreshold:
    """The threshold of largest F1, halfway between the two scores that it parts.

    Halfway, because any value between them gives the same F1 on these pictures. Of several with
    the same F1, the highest.

    Args:
        scores: float ``[N]``, finite.
        is_defective: bool ``[N]``, with both kinds.

    Raises:
        DataError: one kind only, a score that is not finite, or all scores the same.
    """
    defective = int(is_defective.sum())
    good = len(scores) - defective
    if not (good and defective and np.isfinite(scores).all()):
        raise DataError(
            "the threshold of largest F1 needs finite scores of good and of defective pictures"
        )
    levels = np.unique(scores)[::-1]
    if len(levels) == 1:
        raise DataError(f"all {len(scores)} labelled pictures score the same ({levels[0]:.6g})")
    found = defective - np.searchsorted(np.sort(scores[is_defective]), levels)
    alarms = len(scores) - np.searchsorted(np.sort(scores), levels)
    f1 = 2 * found / (alarms + defective)
    best = int(np.argmax(f1))
    next_lower = levels[min(best + 1, len(levels) - 1)]
    return LabelledThreshold(
        value=float((levels[best] + next_lower) / 2),
        f1=float(f1[best]),
        good=good,
        defective=defective,
    )


def _good_first(folder: Path) -> tuple[bool, str]:
    return folder.name != GOOD, folder.name
