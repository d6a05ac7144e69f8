"""What an evaluation finds out; the names of the metrics are those of ``--json``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchline.export.datasets import TestPicture
from patchline.runtime.contract import Manifest


@dataclass(frozen=True)
class Metrics:
    """The metric set of the field, each 0 to 1, ``None`` where it is not defined.

    Attributes:
        image_auroc: area under the ROC curve over images.
        image_ap: average precision over images.
        image_f1_max: largest F1 over all image thresholds.
        pixel_auroc: area under the ROC curve over pixels of all images.
        pixel_ap: average precision over pixels.
        pixel_f1_max: largest F1 (Dice) over all pixel thresholds.
        pixel_iou_max: largest intersection over union over all pixel thresholds.
        aupro: area under the per-region overlap curve up to ``fpr_limit``, divided by it.
    """

    image_auroc: float | None = None
    image_ap: float | None = None
    image_f1_max: float | None = None
    pixel_auroc: float | None = None
    pixel_ap: float | None = None
    pixel_f1_max: float | None = None
    pixel_iou_max: float | None = None
    aupro: float | None = None


@dataclass(frozen=True)
class Curve:
    """A curve as two float64 arrays ``[n]``; ``x`` ascends from 0, both are shares 0 to 1."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredPicture:
    """One test picture and its raw image score."""

    picture: TestPicture
    score: float


@dataclass(frozen=True)
class Findings:
    """What a test set says of a model.

    Attributes:
        pictures: all of the test set with their scores, good ones first.
        metrics: the figures.
        fpr_limit: of AUPRO.
        image_roc: false-positive rate -> true-positive rate over images.
        pixel_roc: the same over pixels.
        pro: false-positive rate over pixels -> mean per-region overlap, over the whole range.
        problems: sentences about what keeps a metric from being computed; the data is wrong.
        notes: sentences about what is simply not there (no masks at all).
    """

    pictures: tuple[ScoredPicture, ...]
    metrics: Metrics
    fpr_limit: float
    image_roc: Curve | None
    pixel_roc: Curve | None
    pro: Curve | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation(Findings):
    """One class, evaluated: its findings, and what they are compared with.

    Attributes:
        manifest: of the model; holds class name, threshold and how it was found.
        engine: what ran it, for people.
    """

    manifest: Manifest
    engine: str

    @property
    def false_alarms(self) -> int:
        """Good pictures at or above the manifest's threshold."""
        return sum(self._is_alarm(item) for item in self.pictures if not item.picture.is_defective)

    @property
    def found(self) -> int:
        """Defective pictures at or above the manifest's threshold."""
        return sum(self._is_alarm(item) for item in self.pictures if item.picture.is_defective)

    def count(self, *, defective: bool) -> int:
        """Pictures of one kind."""
        return sum(item.picture.is_defective == defective for item in self.pictures)

    def _is_alarm(self, item: ScoredPicture) -> bool:
        return item.score >= self.manifest.threshold.value
