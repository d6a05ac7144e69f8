"""The sensitivity of layers as a table for the terminal and as a chart in a file."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from patchline.export.precision.sensitivity import LIMIT_DB, LayerSensitivity
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.files import write_atomically

CHART_SUFFIXES = (".svg", ".png")

_KEPT, _FAILED, _SOFT = "#3b6ea5", "#c4502e", "#666666"
_ROW_IN, _WIDTH_IN, _FRAME_IN = 0.24, 7.5, 1.1


def sensitivity_table(rows: Sequence[LayerSensitivity], whose: str = "") -> Table:
    """A row per layer, in the order given; what fails is said in words, not only in colour.

    Args:
        rows: of the table.
        whose: named in the title, such as the class.
    """
    table = Table(title=Text(_title(whose)))
    for heading in ("layer", "operator"):
        table.add_column(heading, no_wrap=True)
    for heading in ("embeddings, dB", "image score"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        table.add_row(
            row.name,
            row.operator,
            _decibels(row.snr_db),
            f"{100 * row.score_shift:+.2f} %",
            f"below {LIMIT_DB:g} dB" if row.fails else "",
            style="bold red" if row.fails else None,
        )
    return table


def check_chart(path: Path) -> None:
    """Refuse a chart that could not be drawn.

    Raises:
        ConfigurationError: its name ends in neither ``.svg`` nor ``.png``.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in CHART_SUFFIXES:
        raise ConfigurationError(
            f"the sensitivity chart {path} ends in {path.suffix!r}, expected one of "
            f"{', '.join(CHART_SUFFIXES)}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "the sensitivity chart needs matplotlib. Install it with: "
            'pip install "patchline[evaluation]"'
        )


def save_chart(rows: Sequence[LayerSensitivity], path: Path, whose: str = "") -> None:
    """Draw a bar per layer, in the order given from the top, and write it.

    Args:
        rows: at least one.
        path: ends in ``.svg`` or ``.png``.
        whose: named in the title, such as the class.

    Raises:
        ConfigurationError: there is no row, or another ending.
        MissingExtraError: matplotlib is not installed.
        WriteError: ``path`` cannot be written.
    """
    check_chart(path)
    if not rows:
        raise ConfigurationError("there is no layer to draw: every one was left in float")
    write_atomically(path, _draw(rows, path.suffix.lower()[1:], _title(whose)))


def _draw(rows: Sequence[LayerSensitivity], file_format: str, title: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    finite = [row.snr_db for row in rows if math.isfinite(row.snr_db)]
    longest = max([*finite, LIMIT_DB])
    lengths = [row.snr_db if math.isfinite(row.snr_db) else longest for row in rows]
    with matplotlib.rc_context({"svg.hashsalt": "patchline", "svg.fonttype": "none"}):
        height = _FRAME_IN + _ROW_IN * len(rows)
        figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
        axes = figure.subplots()
        colors = [_FAILED if row.fails else _KEPT for row in rows]
        bars = axes.barh(range(len(rows)), lengths, height=0.72, color=colors)
        figures = [_decibels(row.snr_db) for row in rows]
        # On white, so that the line of the limit does not run through a figure.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.bar_label(bars, figures, padding=3, fontsize=8, bbox=box, zorder=3)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
        axes.set_xlim(min([0.0, *finite]), 1.1 * longest)
        axes.axvline(LIMIT_DB, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel("signal to noise of the patch embeddings, dB (longer is better)")
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        # Without a date, so that the same figures are the same file.
        metadata = {"Date": None} if file_format == "svg" else {}
        figure.savefig(buffer, format=file_format, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _title(whose: str) -> str:
    return f"{f'{whose}: ' if whose else ''}INT8, one layer at a time (limit {LIMIT_DB:g} dB)"


def _decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "unchanged" if value > 0 else "no signal"
