"""Which converted models are let out: those that rank, draw and decide as the float32 one does.

The limits of INT8 were set before they were measured. What two MVTec classes with ResNet-18 reach,
with which ranges, and where a class is refused, stands in docs/precision.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from patchline.export.evaluation.result import Evaluation
from patchline.export.precision.compare import Pairs
from patchline.export.precision.rank import highest_correlation, rank_correlation
from patchline.runtime.contract import Gate, GateLimits, Precision, Threshold
from patchline.runtime.errors import GateError

FEW_PICTURES = 10
"""Below so many pictures a rank correlation says nothing, and is no limit."""


@dataclass(frozen=True)
class Limits:
    """What a converted model may differ by.

    Attributes:
        rank_correlation: the least Spearman correlation of image scores, which the upper end of
            its one-sided 95 % interval must reach.
        map_error: the most that 95 % of the maps' values may differ by, in parts of the threshold.
        verdict_changes: the largest share of pictures with another verdict; one picture may
            always have one.
        image_auroc: the most that may be lost; one pair of pictures may always change its order.
        pixel_auroc: the most that may be lost.
    """

    rank_correlation: float
    map_error: float
    verdict_changes: float
    image_auroc: float
    pixel_auroc: float


LIMITS: dict[Precision, Limits] = {
    "fp16": Limits(
        rank_correlation=0.99,
        map_error=0.02,
        verdict_changes=0.02,
        image_auroc=0.001,
        pixel_auroc=0.001,
    ),
    "int8": Limits(
        rank_correlation=0.9,
        map_error=0.1,
        verdict_changes=0.05,
        image_auroc=0.005,
        pixel_auroc=0.005,
    ),
}


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures judged by both models: the float32 one's evaluation, the converted's."""

    before: Evaluation
    after: Evaluation


def gate(
    pairs: Pairs,
    thresholds: tuple[Threshold, Threshold],
    labelled: Labelled | None,
    limits: Limits,
) -> Gate:
    """Compare two models picture by picture.

    Args:
        pairs: good pictures, judged by both.
        thresholds: of the float32 model, and of the converted one.
        labelled: labelled pictures, where there are any.
        limits: see :class:`Limits`.

    Returns:
        The figures, and a sentence for every limit that is passed.
    """
    scores = pairs.scores
    if labelled is not None:
        scores = np.concatenate([scores, _labelled_scores(labelled)])
    verdicts = scores >= np.array([item.value for item in thresholds])
    changes = int((verdicts[:, 0] != verdicts[:, 1]).sum())
    found = Gate(
        images=len(pairs.paths),
        rank_correlation=rank_correlation(*scores.T),
        map_error=map_error(pairs, thresholds),
        verdict_changes=changes / len(scores),
        labelled_images=0 if labelled is None else len(labelled.before.pictures),
        image_auroc_change=_change(labelled, "image_auroc"),
        pixel_auroc_change=_change(labelled, "pixel_auroc"),
        limits=GateLimits(**asdict(limits)),
        left_out=pairs.left_out,
        time_ratio=round(pairs.time_ratio, 3),
    )
    return found.model_copy(update={"problems": tuple(_problems(found, changes, labelled, limits))})


def map_error(pairs: Pairs, thresholds: tuple[Threshold, Threshold]) -> float:
    """95 % of the maps' values, in parts of the own map threshold, differ by less."""
    before, after = (item.map_value for item in thresholds)
    difference = np.abs(pairs.maps[:, 1] / after - pairs.maps[:, 0] / before)
    return float(np.quantile(difference, 0.95))


def check_gate(
    found: Gate,
    precision: Precision,
    name: str,
    *,
    has_choice: bool = True,
    suspicion: str | None = None,
) -> None:
    """Refuse a model that passed a limit.

    Args:
        found: the figures.
        precision: of the converted model.
        name: of the class.
        has_choice: whether other ranges or layers left out may help.
        suspicion: what may be wrong with the pictures, said before any advice.

    Raises:
        GateError: it did; every limit is named with its figures, and what to do.
    """
    if not found.problems or found.is_forced:
        return
    advice = (
        "Raise --calibration-images, try another --calibration-method, or leave layers out with "
        "--float-layers auto"
        if precision == "int8" and has_choice
        else "Export it with --precision fp32"
    )
    raise GateError(
        f"{name} in {precision} judges otherwise than in float32. {'; '.join(found.problems)}. "
        f"{f'{suspicion}. ' if suspicion else ''}{advice}; --force writes it all the same"
    )


def _labelled_scores(labelled: Labelled) -> npt.NDArray[np.float64]:
    both = (labelled.before.pictures, labelled.after.pictures)
    scores: npt.NDArray[np.float64] = np.array(
        [[item.score for item in pictures] for pictures in both], np.float64
    )
    return np.ascontiguousarray(scores.T)


def _change(labelled: Labelled | None, name: str) -> float | None:
    if labelled is None:
        return None
    before, after = (getattr(item.metrics, name) for item in (labelled.before, labelled.after))
    return None if before is None or after is None else float(after - before)


def _problems(found: Gate, changes: int, labelled: Labelled | None, limits: Limits) -> list[str]:
    pictures = found.images + found.labelled_images
    problems = []
    if pictures >= FEW_PICTURES:
        # A few good pictures of a sound model fall below the limit by chance alone.
        highest = highest_correlation(found.rank_correlation, pictures)
        if not highest >= limits.rank_correlation:
            problems.append(
                f"the rank correlation of {pictures} pictures' scores is "
                f"{found.rank_correlation:.4f} (of many more {highest:.4f} at most), at least "
                f"{limits.rank_correlation:g} is accepted"
            )
    if not found.map_error <= limits.map_error:
        problems.append(
            f"the anomaly maps differ by {found.map_error:.3g} of the threshold or more in 5 % of "
            f"their values, at most {limits.map_error:g} is accepted"
        )
    most = max(1, int(limits.verdict_changes * pictures))
    if changes > most:
        problems.append(
            f"{changes} of {pictures} verdicts differ, at most {most} "
            f"{'is' if most == 1 else 'are'} accepted"
        )
    return problems + _auroc_problems(found, labelled, limits)


def _auroc_problems(found: Gate, labelled: Labelled | None, limits: Limits) -> list[str]:
    if labelled is None:
        return []
    defective = labelled.before.count(defective=True)
    pairs = defective * labelled.before.count(defective=False)
    image_limit = max(limits.image_auroc, 1 / pairs if pairs else 1.0)
    return [
        f"the {what} AUROC falls by {-change:.4f}, at most {limit:.4g} is accepted"
        for what, change, limit in (
            ("image", found.image_auroc_change, image_limit),
            ("pixel", found.pixel_auroc_change, limits.pixel_auroc),
        )
        if change is not None and not -change <= limit + 1e-9
    ]
