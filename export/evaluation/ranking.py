"""AUROC, average precision, F1 and IoU of a ranking, from scikit-learn's curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from patchline.export.evaluation.result import Curve


@dataclass(frozen=True)
class Ranking:
    """How well scores rank defective things above the others, each figure 0 to 1.

    Attributes:
        auroc: area under the ROC curve.
        ap: average precision (no interpolation).
        f1_max: largest F1 over all thresholds.
        iou_max: largest intersection over union over all thresholds.
        roc: false-positive rate -> true-positive rate.
    """

    auroc: float
    ap: float
    f1_max: float
    iou_max: float
    roc: Curve


def rank(
    is_defective: npt.NDArray[np.bool_],
    scores: npt.NDArray[Any],
    counts: npt.NDArray[np.float64] | None = None,
) -> Ranking:
    """Evaluate a ranking.

    Args:
        is_defective: bool ``[N]``, both kinds present.
        scores: ``[N]``, finite, larger is more anomalous; only their order counts.
        counts: float64 ``[N]``, how often each occurs, at least 1; once by default.
    """
    # One after the other, and no longer than it is needed: over pixels these arrays are large.
    precision, recall, _ = precision_recall_curve(is_defective, scores, sample_weight=counts)
    f1_max = _f1_max(precision, recall)
    # The definition of average_precision_score, which would sort everything once more.
    ap = float(-np.sum(np.diff(recall) * precision[:-1]))
    del precision, recall
    fpr, tpr, _ = roc_curve(is_defective, scores, sample_weight=counts)
    return Ranking(
        auroc=float(auc(fpr, tpr)),
        ap=max(ap, 0.0),
        f1_max=f1_max,
        iou_max=f1_max / (2 - f1_max),  # TP / (TP + FP + FN) rises with 2 TP / (2 TP + FP + FN)
        roc=Curve(np.asarray(fpr, np.float64), np.asarray(tpr, np.float64)),
    )


def _f1_max(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> float:
    # F1 is 0 where recall is, and 0 / 0 at the curve's end.
    total = np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return float(np.max(2 * precision * recall / total))
