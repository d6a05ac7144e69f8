"""How every chart looks, and how it is written: the same bytes for the same results.

Colours are Okabe and Ito's, which colour-blind people tell apart; each series has a marker and a
line style of its own besides. The ground is white, so that a dark page does no harm.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from patchline.runtime.files import write_atomically

INK, SOFT, LINE = "#1a1a1a", "#555555", "#dddddd"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "solid",
    (0, (6, 2)),
    (0, (2, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (9, 3)),
)

_STYLE: dict[str, Any] = {
    # Letters as outlines: what is drawn does not depend on the fonts of whoever looks.
    "svg.fonttype": "path",
    "svg.hashsalt": "patchline",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "white",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}

_WIDTH_IN, _PLOT_IN, _TITLE_IN, _LEFT_IN, _TICKS_IN = 8.0, 3.7, 0.5, 0.75, 0.55
_LEGEND_LINE_IN, _NOTE_LINE_IN, _NOTE_LETTERS = 0.215, 0.155, 130

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def write_chart(
    path: Path, draw: Callable[[list[Any]], None], *, title: str, note: str, panels: int = 1
) -> None:
    """Draw a figure and write it as SVG.

    Args:
        path: of the file; its folder is made.
        draw: fills the panels.
        title: what is seen; no ``$``.
        note: where and with what it was measured, in small letters below; no ``$``.
        panels: side by side. Their one legend lies below them, where it hides nothing.
    """
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(style):
        figure = Figure()
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        draw(axes)
        _lay_out(figure, axes, title, textwrap.wrap(note, _NOTE_LETTERS))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _lay_out(figure: Figure, axes: list[Any], title: str, note: list[str]) -> None:
    """Title, panels, legend and note below each other, each with the room that it needs."""
    handles: list[Any] = []
    labels: list[str] = []
    for panel in axes:
        found = panel.get_legend_handles_labels()
        handles, labels = handles + found[0], labels + found[1]
    note_in = _NOTE_LINE_IN * len(note) + 0.1
    legend_in = _LEGEND_LINE_IN * len(labels) + 0.1
    below = note_in + legend_in + _TICKS_IN
    height = below + _PLOT_IN + _TITLE_IN
    figure.set_size_inches(_WIDTH_IN, height)
    figure.subplots_adjust(
        left=_LEFT_IN / _WIDTH_IN,
        right=1 - 0.2 / _WIDTH_IN,
        bottom=below / height,
        top=1 - _TITLE_IN / height,
        wspace=0.3,
    )
    left = 0.12 / _WIDTH_IN
    figure.text(left, 1 - 0.1 / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(left, 0.08 / height, "\n".join(note), va="bottom", fontsize=8, color=SOFT)
    figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(left, note_in / height),
        borderaxespad=0,
        borderpad=0,
        handlelength=3.2,
    )


def log_axes(axes: Any, sizes: list[float], values: list[float]) -> None:
    """Both axes logarithmic, with ticks at the sizes and at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(sizes) / 1.2, max(sizes) * 1.2)
    axes.set_ylim(min(values) / 1.6, max(values) * 1.6)
    axes.set_xticks(sizes, [short_number(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=_ticks(max(values) / min(values))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _ticks(span: float) -> tuple[float, ...]:
    """Ticks of a decade: the fewer decades, the more."""
    if span > 300:
        return (1,)
    return (1, 2, 5) if span > 8 else (1, 1.5, 2, 3, 4, 5, 7)


def short_number(value: float) -> str:
    """``0.5``, ``20``, ``20k``, ``1M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def three_digits(value: float) -> str:
    """``0.0123``, ``4.24``, ``1,220``: three significant digits and never an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.10f}".rstrip("0").rstrip(".")
