"""Matplotlib figures as SVG that takes its colours from the page, light or dark.

Drawn without pyplot, so that nothing global is left behind.
"""

from __future__ import annotations

import io
import re
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

INK, SOFT, LINE, CARD = "#010203", "#010204", "#010205", "#010206"
GOOD, DEFECT, PIXELS = "#010207", "#010208", "#010209"
"""Colours to draw with; each only stands for one of the style sheet."""

_PAINTS = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    CARD: "var(--card)",
    GOOD: "var(--good)",
    DEFECT: "var(--defect)",
    PIXELS: "var(--pixels)",
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "patchline",
    "font.family": "sans-serif",
    "font.size": 12.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}
"""For ``matplotlib.rc_context`` around everything from :func:`new_figure` to :func:`to_svg`."""

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_HEIGHT = 300  # units of the drawing; the page scales them


def new_figure(width: int) -> Figure:
    """An empty figure, ``width`` units wide at a height of 300."""
    return Figure(figsize=(width / 72, _HEIGHT / 72), layout="constrained")


def to_svg(figure: Figure, name: str) -> Markup:
    """The figure as an ``svg`` element that fills its place on the page.

    Args:
        figure: without text of a user's.
        name: letters, digits and hyphens; goes before every identifier of the drawing.

    Returns:
        The same text for the same figure; nothing in it leads outside.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML heading, which HTML has no place for
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.DOTALL)
    for stand_in, paint in _PAINTS.items():
        svg = svg.replace(stand_in, paint)
    # Every drawing counts its parts from 1, and a page is one space of identifiers.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for side in ("height", "width"):  # the style sheet's to say
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    return Markup(svg)
