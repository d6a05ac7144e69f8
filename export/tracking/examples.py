"""Test pictures with their heat maps, by captions that stay the same from one model to the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from patchline.export.datasets import TestPicture
from patchline.export.evaluation.evaluate import Judge
from patchline.export.evaluation.result import ScoredPicture
from patchline.export.tracking.pictures import example_picture
from patchline.runtime.contract import ModelSize
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess

FIXED = 6
"""So many pictures are looked at again and again."""

GOOD_SHARE = 0.95
"""Of the good test pictures, those whose heat maps have no contour while there is no threshold."""

HeatMaps = dict[str, npt.NDArray[np.uint8]]
"""uint8 RGB by ``DEFECT/FILE``, without the score: TensorBoard knows a picture again by it."""


def heat_maps(
    judge: Judge, pictures: Sequence[TestPicture], size: ModelSize, map_threshold: float
) -> HeatMaps:
    """Pictures as the model sees them, each beside its heat map; see :func:`example_picture`.

    Args:
        judge: the model.
        pictures: which to show.
        size: of the model's frames.
        map_threshold: map values at or above it are inside the contour.

    Raises:
        ImageReadError: a picture cannot be read.
        PatchlineError: of ``judge``.
    """
    shown = {}
    judged = judge(picture.path for picture in pictures)
    for picture, found in zip(pictures, judged, strict=True):
        frame = preprocess(read_image(picture.path), size)
        caption = f"{picture.defect}/{picture.path.name}"
        shown[caption] = example_picture(frame, found.anomaly_map, map_threshold)
    return shown


def fixed_heat_maps(judge: Judge, pictures: Sequence[ScoredPicture], size: ModelSize) -> HeatMaps:
    """A few pictures of a test set that are the same ones every time, to be compared over time.

    Args:
        judge: the model.
        pictures: the test set, at least one; the scores are the model's.
        size: of its frames.

    Raises:
        ImageReadError: as for :func:`heat_maps`.
        PatchlineError: likewise.
    """
    chosen = fixed_examples(item.picture for item in pictures)
    return heat_maps(judge, chosen, size, heat_scale(pictures))


def fixed_examples(pictures: Iterable[TestPicture], most: int = FIXED) -> list[TestPicture]:
    """The first picture of every kind, then the second of each, and so on, ``most`` in all."""
    by_kind: dict[str, list[TestPicture]] = {}
    for picture in pictures:
        by_kind.setdefault(picture.defect, []).append(picture)
    rounds = itertools.zip_longest(*by_kind.values())
    return [picture for each in rounds for picture in each if picture is not None][:most]


def heat_scale(pictures: Sequence[ScoredPicture]) -> float:
    """A threshold for heat maps of a model under training, which has none of its own yet.

    The scores of 95 % of the good pictures stay below it; without good ones it is the median of
    all.
    """
    good = [item.score for item in pictures if not item.picture.is_defective]
    if good:
        return float(np.quantile(good, GOOD_SHARE))
    return float(np.median([item.score for item in pictures]))
