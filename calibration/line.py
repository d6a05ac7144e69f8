"""A threshold for the line itself: from good pictures taken there, through the deployed engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchline.calibration.judge import OnUnreadable, judge_pictures
from patchline.calibration.labelled import LabelledPicture, f1_max_threshold
from patchline.calibration.threshold import derive_threshold, normal_scores
from patchline.runtime.contract import LabelledThreshold, Manifest, NormalScores
from patchline.runtime.engine import Engine
from patchline.runtime.errors import DataError
from patchline.runtime.progress import Advance

DRIFT_FACTOR = 1.5
"""A median of the line's scores past this multiple of the fit's is worth a warning."""


@dataclass(frozen=True)
class Drift:
    """How the line's good pictures compare with those of the fit.

    Attributes:
        median: of the line's scores.
        median_before: of the scores that the manifest held.
        false_alarms: of the line's pictures, how many reach the threshold before.
        images: pictures of the line.
    """

    median: float
    median_before: float
    false_alarms: int
    images: int

    @property
    def is_large(self) -> bool:
        """Whether the line looks unlike the pictures of the fit."""
        return self.median > DRIFT_FACTOR * self.median_before > 0


def score_line(
    engine: Engine, paths: Sequence[Path], advance: Advance, on_unreadable: OnUnreadable | None
) -> NormalScores:
    """Scores of good pictures of the line.

    Raises:
        DataError: none could be read.
        ImageReadError: one cannot be read, and ``on_unreadable`` is ``None``.
        EngineError: the engine failed, or a score is NaN or infinite; the picture is named.
    """
    found = []
    for judged in judge_pictures(engine, paths, on_unreadable):
        found.append((judged.score, float(judged.anomaly_map.max())))
        advance(len(found))
    if not found:
        raise DataError(f"none of the {len(paths)} pictures can be read")
    scores, maxima = np.array(found).T
    return normal_scores(scores, maxima, "line")


def score_labelled(
    engine: Engine, pictures: Sequence[LabelledPicture], advance: Advance
) -> LabelledThreshold:
    """The threshold of largest F1 over labelled pictures.

    Raises:
        DataError: as for :func:`patchline.calibration.labelled.f1_max_threshold`.
        ImageReadError: a picture cannot be read.
        EngineError: the engine failed, or a score is NaN or infinite; the picture is named.
    """
    scores = []
    for judged in judge_pictures(engine, [picture.path for picture in pictures]):
        scores.append(judged.score)
        advance(len(scores))
    return f1_max_threshold(
        np.array(scores), np.array([picture.is_defective for picture in pictures])
    )


def drift_of(normal: NormalScores, before: Manifest) -> Drift:
    """Compare the line's scores with those that the manifest holds."""
    return Drift(
        median=float(np.median(normal.scores)),
        median_before=float(np.median(before.normal_scores.scores)),
        false_alarms=sum(score >= before.threshold.value for score in normal.scores),
        images=len(normal.scores),
    )


def recalibrated(
    manifest: Manifest,
    normal: NormalScores | None,
    false_alarm_rate: float | None,
    f1_max: LabelledThreshold | None,
) -> Manifest:
    """The manifest with a new threshold; all else stays.

    Args:
        manifest: of the model.
        normal: scores of the line; ``None`` keeps those that the manifest holds.
        false_alarm_rate: asked for; ``None`` keeps the manifest's.
        f1_max: beside the threshold; ``None`` keeps the one the manifest holds. Alone it leaves
            the threshold as it is.

    Raises:
        DataError: no threshold can be derived.
    """
    threshold = manifest.threshold
    scores = normal or manifest.normal_scores
    if normal is not None or false_alarm_rate is not None:
        threshold = derive_threshold(scores, false_alarm_rate or threshold.false_alarm_rate)
    kept = f1_max or manifest.threshold.f1_max
    threshold = threshold.model_copy(update={"f1_max": kept})
    return manifest.model_copy(update={"threshold": threshold, "normal_scores": scores})
