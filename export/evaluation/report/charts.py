"""The charts of the report: scores, ROC, per-region overlap.

No text that comes from a user (class and file names) goes into a chart: Matplotlib would read a
``$`` in it as mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from patchline.export.evaluation.report.figures import score_text
from patchline.export.evaluation.report.svg import (
    CARD,
    DEFECT,
    GOOD,
    INK,
    PIXELS,
    SOFT,
    STYLE,
    new_figure,
    to_svg,
)
from patchline.export.evaluation.result import Curve

_FEWEST_BINS, _MOST_BINS = 10, 40


def score_edges(scores: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    """Edges of equal bins over all scores; the threshold is one of them.

    So every bar lies wholly on the side on which its pictures were judged.

    Args:
        scores: float64 ``[n]`` of good and defective pictures, finite, at least one.
        threshold: finite.

    Returns:
        float64 ``[bins + 1]``, ascending, from at or below the least of scores and threshold to
        above the largest.
    """
    low, high = min(scores.min(), threshold), max(scores.max(), threshold)
    bins = int(np.clip(2 * np.sqrt(len(scores)), _FEWEST_BINS, _MOST_BINS))
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):  # all alike: any width shows it
        spread = max(abs(threshold), 1.0)
    width = spread / bins
    # A score at the top edge would share a bin with what lies below it.
    below, above = np.ceil((threshold - low) / width), np.floor((high - threshold) / width) + 1
    edges = np.asarray(threshold + width * np.arange(-below, above + 1), np.float64)
    # Rounding may leave the outermost scores just outside.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def draw_histogram(
    good: Sequence[float], defective: Sequence[float], threshold: float, *, name: str
) -> Markup:
    """Counts of good scores above those of defective ones, over one axis, with the threshold.

    Each kind has its own scale of counts, so that few pictures are seen beside many.

    Args:
        good: scores of good pictures.
        defective: scores of defective ones; together at least one.
        threshold: at or above it a picture is anomalous.
        name: makes the identifiers of this drawing differ from others on the page.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(470)
        edges = score_edges(np.array([*good, *defective], np.float64), threshold)
        rows = figure.subplots(2, 1, sharex=True)
        for axes, scores, color, kind in zip(
            rows, (good, defective), (GOOD, DEFECT), ("good", "defective"), strict=True
        ):
            _draw_counts(axes, scores, edges, color)
            axes.axvline(threshold, color=INK, linewidth=1.6)
            axes.set_ylabel(f"{len(scores)} {kind}", color=color)
        rows[0].annotate(
            f"threshold {score_text(threshold)}",
            (threshold, 1.0),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
        )
        rows[1].set_xlabel("image score")
        return to_svg(figure, name)


def draw_roc(
    image: Curve | None,
    pixel: Curve | None,
    operating_point: tuple[float, float] | None,
    *,
    name: str,
) -> Markup:
    """ROC curves over images and over pixels.

    Args:
        image: false-positive rate -> true-positive rate; left out where ``None``.
        pixel: the same over pixels; one of the two is there.
        operating_point: false-alarm rate and share of found defects at the threshold.
        name: as for :func:`draw_histogram`.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(360)
        axes = _unit_axes(figure, "false-positive rate", "true-positive rate")
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (2, 3)))
        if pixel is not None:
            axes.plot(pixel.x, pixel.y, color=PIXELS, linestyle=(0, (5, 2)), label="pixels")
        if image is not None:
            axes.plot(image.x, image.y, color=INK, label="images")
        if operating_point is not None:
            axes.plot(
                *operating_point,
                color=INK,
                marker="o",
                markersize=7,
                linestyle="none",
                label="images, at the threshold",
                clip_on=False,
            )
        axes.legend(loc="lower right", borderaxespad=0.2)
        return to_svg(figure, name)


def draw_pro(curve: Curve, fpr_limit: float, *, name: str) -> Markup:
    """The per-region overlap curve; the area up to ``fpr_limit``, which is AUPRO's, is shaded."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(360)
        axes = _unit_axes(figure, "false-positive rate over pixels", "mean overlap per region")
        below = curve.x < fpr_limit
        x = np.append(curve.x[below], fpr_limit)
        y = np.append(curve.y[below], np.interp(fpr_limit, curve.x, curve.y))
        axes.fill_between(x, y, color=PIXELS, alpha=0.22, linewidth=0)
        axes.plot(curve.x, curve.y, color=PIXELS)
        axes.axvline(fpr_limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        on_left = fpr_limit > 0.6
        axes.annotate(
            f"limit {fpr_limit:g}",
            (fpr_limit, 0.06),
            (-6 if on_left else 6, 0),
            textcoords="offset points",
            ha="right" if on_left else "left",
        )
        return to_svg(figure, name)


def _unit_axes(figure: Any, x_label: str, y_label: str) -> Any:
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks.round(1)])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks.round(1)])
    axes.grid(True)
    return axes


def _draw_counts(axes: Any, scores: Sequence[float], edges: Any, color: str) -> None:
    counts, _ = np.histogram(scores, edges)
    axes.bar(
        edges[:-1],
        counts,
        np.diff(edges),
        align="edge",
        color=color,
        edgecolor=CARD,
        linewidth=0.6,
    )
    axes.set_ylim(0, max(1, counts.max()) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.grid(True, axis="y")
