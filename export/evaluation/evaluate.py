"""A model over the labelled test set of its class: every metric of the field.

Defective pictures are judged first and their maps kept; good ones are counted as they come
(see :mod:`patchline.export.evaluation.pixel_counts`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchline.calibration.judge import JudgedPicture, judge_pictures
from patchline.export.evaluation.aupro import (
    FPR_LIMIT,
    aupro,
    check_fpr_limit,
    pro_curve,
    region_overlaps,
)
from patchline.export.evaluation.image_metrics import image_ranking
from patchline.export.evaluation.masks import Mask
from patchline.export.evaluation.pixel_counts import PixelCounts, count_pixels, pixel_ranking
from patchline.export.evaluation.ranking import Ranking
from patchline.export.evaluation.result import Curve, Evaluation, Findings, Metrics, ScoredPicture
from patchline.export.evaluation.test_set import TestSet, load_test_set
from patchline.runtime.engine import Engine
from patchline.runtime.errors import DataError
from patchline.runtime.progress import Advance

Judge = Callable[[Iterable[Path]], Iterator[JudgedPicture]]
"""Pictures -> what a model says of each, in the order given; no value is NaN or infinite."""

_CURVE_STEPS = 1000
"""A curve is kept this fine, for drawing; the figures come from all of its points."""


def evaluate_class(
    engine: Engine,
    data: Path,
    *,
    class_name: str | None = None,
    fpr_limit: float = FPR_LIMIT,
    advance: Advance = lambda done: None,
) -> Evaluation:
    """Judge the test set of a class and compare with its labels and masks.

    Args:
        engine: the model.
        data: folder of class folders in MVTec layout.
        class_name: the class folder; the model's own class by default.
        fpr_limit: of AUPRO, in (0, 1].
        advance: called with the number of pictures judged so far.

    Returns:
        The evaluation; a metric that is not defined is ``None``, and a sentence says why.

    Raises:
        ConfigurationError: ``fpr_limit`` is outside (0, 1].
        ClassNotFoundError: no such class.
        ImageReadError: a picture cannot be read; it is named.
        EngineError: the engine failed, or gave NaN or infinity; the picture is named.
    """
    check_fpr_limit(fpr_limit)
    manifest = engine.manifest
    test_set = load_test_set(data, class_name or manifest.class_name, manifest.model_size)
    judge = functools.partial(judge_pictures, engine)
    found = evaluate_test_set(judge, test_set, fpr_limit=fpr_limit, advance=advance)
    return Evaluation(**vars(found), manifest=manifest, engine=engine.description)


def evaluate_test_set(
    judge: Judge,
    test_set: TestSet,
    *,
    fpr_limit: float = FPR_LIMIT,
    advance: Advance = lambda done: None,
) -> Findings:
    """Compare what any model says of a test set with its labels and masks.

    Args:
        judge: the model; its maps have the size that the masks were read at.
        test_set: the pictures.
        fpr_limit: of AUPRO, in (0, 1].
        advance: called with the number of pictures judged so far.

    Raises:
        ConfigurationError: ``fpr_limit`` is outside (0, 1].
        PatchlineError: of ``judge``.
    """
    check_fpr_limit(fpr_limit)
    scores: dict[Path, float] = {}
    judged = _judge(judge, test_set, scores, advance)
    problems = list(test_set.problems)
    counted = _count(judged, test_set.masks)
    images = _evaluate_images(test_set, scores, problems)
    pixels = _evaluate_pixels(counted, fpr_limit, problems)
    return Findings(
        pictures=tuple(ScoredPicture(p, scores[p.path]) for p in test_set.pictures),
        metrics=_metrics(images, pixels),
        fpr_limit=fpr_limit,
        image_roc=images.roc if images else None,
        pixel_roc=thinned(pixels.ranking.roc) if pixels else None,
        pro=thinned(pixels.pro) if pixels else None,
        problems=tuple(problems),
        notes=test_set.notes,
    )


def thinned(curve: Curve) -> Curve:
    """The curve without points nearer than a thousandth to the one before; both ends stay."""
    cells = np.floor(np.stack([curve.x, curve.y]) * _CURVE_STEPS)
    keep = np.ones(len(curve.x), bool)
    keep[1:-1] = (np.diff(cells[:, :-1]) != 0).any(axis=0)
    return Curve(curve.x[keep], curve.y[keep])


@dataclass(frozen=True)
class _Counted:
    pixels: PixelCounts
    overlaps: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Pixels:
    ranking: Ranking
    pro: Curve
    aupro: float


def _judge(
    judge: Judge, test_set: TestSet, scores: dict[Path, float], advance: Advance
) -> Iterator[JudgedPicture]:
    """Judge the defective pictures, then the good ones, and note each score."""
    in_order = sorted(test_set.pictures, key=lambda picture: not picture.is_defective)
    for judged in judge(picture.path for picture in in_order):
        scores[judged.path] = judged.score
        advance(len(scores))
        yield judged


def _count(judged: Iterator[JudgedPicture], masks: Mapping[Path, Mask]) -> _Counted | None:
    """Count the pixels of all pictures, which judges them; without masks only judge them."""
    if not masks:
        for _ in judged:
            pass
        return None
    defective = [(item.anomaly_map, masks[item.path]) for item in islice(judged, len(masks))]
    counts = count_pixels(defective, (item.anomaly_map for item in judged))
    return _Counted(counts, region_overlaps(defective, counts.levels))


def _evaluate_pixels(
    counted: _Counted | None, fpr_limit: float, problems: list[str]
) -> _Pixels | None:
    if counted is None:
        return None
    try:
        ranking = pixel_ranking(counted.pixels)
    except DataError as error:
        problems.append(str(error))
        return None
    pro = pro_curve(counted.pixels, counted.overlaps)
    return _Pixels(ranking, pro, aupro(pro, fpr_limit))


def _evaluate_images(
    test_set: TestSet, scores: Mapping[Path, float], problems: list[str]
) -> Ranking | None:
    labels = np.array([picture.is_defective for picture in test_set.pictures], bool)
    values = np.array([scores[picture.path] for picture in test_set.pictures], np.float64)
    try:
        return image_ranking(values, labels)
    except DataError as error:
        problems.append(str(error))
        return None


def _metrics(images: Ranking | None, pixels: _Pixels | None) -> Metrics:
    ranking = pixels.ranking if pixels else None
    return Metrics(
        image_auroc=images.auroc if images else None,
        image_ap=images.ap if images else None,
        image_f1_max=images.f1_max if images else None,
        pixel_auroc=ranking.auroc if ranking else None,
        pixel_ap=ranking.ap if ranking else None,
        pixel_f1_max=ranking.f1_max if ranking else None,
        pixel_iou_max=ranking.iou_max if ranking else None,
        aupro=pixels.aupro if pixels else None,
    )
