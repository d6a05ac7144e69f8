"""The chart panels of one class: a drawing, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from patchline.export.evaluation.report.charts import draw_histogram, draw_pro, draw_roc
from patchline.export.evaluation.report.figures import (
    Count,
    false_alarms,
    found,
    percent,
    score_text,
)
from patchline.export.evaluation.result import Evaluation


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: heading.
        about: what the chart says, in words, for who does not see it; empty without a drawing.
        drawing: SVG, ``None`` where there is nothing to draw.
        why_none: a sentence in its place, empty where there is a drawing.
        note: a line below the chart, empty for none.
    """

    title: str
    about: str = ""
    drawing: Markup | None = None
    why_none: str = ""
    note: str = ""


def chart_panels(evaluation: Evaluation, name: str) -> tuple[Panel, Panel, Panel]:
    """Scores, ROC and PRO of one class.

    Args:
        evaluation: the class.
        name: differs from class to class, letters and hyphens; it becomes part of identifiers.
    """
    return (
        _scores_panel(evaluation, f"{name}-scores"),
        _roc_panel(evaluation, f"{name}-roc"),
        _pro_panel(evaluation, f"{name}-pro"),
    )


def _scores_panel(evaluation: Evaluation, name: str) -> Panel:
    title, threshold = "Scores", evaluation.manifest.threshold.value
    if not evaluation.pictures:
        return Panel(title, why_none="There are no test pictures, so there are no scores.")
    good, defective = (
        [item.score for item in evaluation.pictures if item.picture.is_defective == is_defective]
        for is_defective in (False, True)
    )
    return Panel(
        title,
        f"Histogram of image scores with the threshold at {score_text(threshold)}. At or above it: "
        f"good pictures {false_alarms(evaluation)}, defective pictures {found(evaluation)}.",
        draw_histogram(good, defective, threshold, name=name),
        note="At or right of the threshold a picture is called anomalous. "
        "Good and defective pictures have scales of their own.",
    )


def _roc_panel(evaluation: Evaluation, name: str) -> Panel:
    title, image, pixel = "ROC", evaluation.image_roc, evaluation.pixel_roc
    missing = [
        *([] if image is not None else [_why_no_image_roc(evaluation)]),
        *([] if pixel is not None else [f"No curve over pixels: {_WHY_NO_PIXELS}"]),
    ]
    if image is None and pixel is None:
        return Panel(title, why_none=" ".join(missing))
    metrics = evaluation.metrics
    return Panel(
        title,
        f"ROC curves; area over images {_figure(metrics.image_auroc)}, "
        f"over pixels {_figure(metrics.pixel_auroc)}.",
        draw_roc(image, pixel, _operating_point(evaluation), name=name),
        note=" ".join(
            [
                f"AUROC over images {_figure(metrics.image_auroc)}, "
                f"over pixels {_figure(metrics.pixel_auroc)}.",
                *missing,
            ]
        ),
    )


def _pro_panel(evaluation: Evaluation, name: str) -> Panel:
    title, curve, aupro = "Per-region overlap", evaluation.pro, evaluation.metrics.aupro
    if curve is None:
        return Panel(title, why_none=f"No curve: {_WHY_NO_PIXELS}")
    limit = f"{100 * evaluation.fpr_limit:g} %"
    return Panel(
        title,
        f"Curve of the mean overlap per defect region; AUPRO up to {limit} false positives is "
        f"{_figure(aupro)}.",
        draw_pro(curve, evaluation.fpr_limit, name=name),
        note=f"AUPRO {_figure(aupro)}: the shaded area up to a false-positive rate of {limit}, "
        "divided by that rate.",
    )


_WHY_NO_PIXELS = "it needs usable masks of the defects; see the remarks above."


def _why_no_image_roc(evaluation: Evaluation) -> str:
    good, defective = evaluation.count(defective=False), evaluation.count(defective=True)
    return (
        "No curve over images: it needs good and defective pictures, "
        f"and the test set has {good} good and {defective} defective."
    )


def _operating_point(evaluation: Evaluation) -> tuple[float, float] | None:
    alarms: Count = false_alarms(evaluation)
    finds: Count = found(evaluation)
    return (alarms.share, finds.share) if alarms.of and finds.of else None


def _figure(value: float | None) -> str:
    return f"{percent(value)}\N{NO-BREAK SPACE}%" if value is not None else percent(value)
