"""Time and memory against size, with the law that was fitted and the one that was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchline.benchmarks.charts.style import (
    COLORS,
    DASHES,
    MARKERS,
    SOFT,
    log_axes,
    three_digits,
)
from patchline.benchmarks.scaling.names import PEAK

AXES = {
    "bank_rows": "rows of the memory bank",
    "image_size_px": "side of the frame, px",
    "frames": "frames in a call",
    "images": "training images",
}
"""What the sizes are called."""

_UNITS = {
    ("bank_rows", 1): (1e3, "1,000 rows"),
    ("image_size_px", 2): (1e6, "megapixel"),
    ("frames", 1): (1, "frame"),
    ("images", 1): (1e3, "1,000 images"),
    ("images", 2): (1e6, "(1,000 images)²"),
}

_SYMBOLS = {"bank_rows": "rows", "image_size_px": "side", "frames": "frames", "images": "images"}


@dataclass(frozen=True)
class Curve:
    """One quantity of one series.

    Attributes:
        label: for the legend.
        axis: what the sizes are, a key of :data:`AXES`.
        sizes: ascending.
        values: medians.
        low: first quartiles, or the least,
        high: third quartiles, or the most.
        unit: of the values: ``ms``, ``s`` or ``MiB``.
        law: as :func:`patchline.benchmarks.scaling.laws.choose_law` says it, if there is one.
        hollow: of each point, whether its marker is hollow.
    """

    label: str
    axis: str
    sizes: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    unit: str
    law: Mapping[str, Any] | None
    hollow: Sequence[bool]


def time_curve(series: Mapping[str, Any], quantity: str, *, unit: str = "ms") -> Curve:
    """Times of a series in a results file; ``unit`` may be ``s``."""
    scale = {"ms": 1.0, "s": 1e-3}[unit]
    times = [point["times"][quantity] for point in series["points"]]
    return _curve(
        series,
        quantity,
        [[scale * time[f"{part}_ms"] for time in times] for part in ("median", "q1", "q3")],
        unit,
        scale,
    )


def memory_curve(series: Mapping[str, Any]) -> Curve:
    """Peak memory of a series in a results file."""
    memory = [point["memory"] for point in series["points"]]
    peaks = [part["visits_peak_mib"] for part in memory]
    medians = [part["peak_mib"] for part in memory]
    series = {**series, "name": f"memory, {series['name']}"}
    return _curve(series, PEAK, [medians, list(map(min, peaks)), list(map(max, peaks))], "MiB", 1)


def _curve(
    series: Mapping[str, Any], quantity: str, values: list[list[float]], unit: str, scale: float
) -> Curve:
    axis, points = series["axis"], series["points"]
    law = series.get("laws", {}).get(quantity)
    return Curve(
        label=series["name"],
        axis=axis,
        sizes=[point[axis] for point in points],
        values=values[0],
        low=values[1],
        high=values[2],
        unit=unit,
        law=_scaled(law, scale) if law else None,
        hollow=[bool(point["facts"].get("on_disk", 0)) for point in points],
    )


def draw_curves(axes: Any, curves: Sequence[Curve], *, is_log: bool) -> None:
    """Draw points with their spread, the fitted laws, and the expected exponent in gray.

    Args:
        axes: to draw on.
        curves: of one axis and unit.
        is_log: both axes logarithmic; the expected law is a straight line there.
    """
    for index, curve in enumerate(curves):
        _draw(axes, curve, index, is_log=is_log)
    sizes = sorted({size for curve in curves for size in curve.sizes})
    values = [value for curve in curves for value in curve.values]
    if is_log:
        log_axes(axes, sizes, values)
    else:
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.set_xlim(0 if sizes[0] == 1 else sizes[0] - 16, 1.03 * sizes[-1])
        axes.set_ylim(0, 1.12 * max(max(curve.high) for curve in curves))
    axes.set_xlabel(AXES[curves[0].axis])


def _draw(axes: Any, curve: Curve, index: int, *, is_log: bool) -> None:
    color, marker = COLORS[index], MARKERS[index]
    sizes, values = np.asarray(curve.sizes, float), np.asarray(curve.values)
    # Of visits and calls, a median may lie outside the quartiles that were rounded.
    reach = np.maximum([values - curve.low, np.asarray(curve.high) - values], 0)
    axes.errorbar(sizes, values, reach, color=color, linestyle="none", linewidth=1, capsize=2)
    for is_hollow in (False, True):
        chosen = np.asarray(curve.hollow) == is_hollow
        face = "white" if is_hollow else color
        axes.plot(
            sizes[chosen], values[chosen], color=color, marker=marker, mfc=face, linestyle="none"
        )
    line: dict[str, Any] = {"color": color, "linestyle": DASHES[index], "marker": marker}
    if curve.law is None:
        axes.plot(sizes, values, linewidth=1, **line | {"marker": ""})
        axes.plot([], [], label=curve.label, **line)
        return
    x = np.geomspace(sizes[0], sizes[-1], 200)
    axes.plot(x, law_function(curve.law)(x), color=color, linestyle=DASHES[index])
    axes.plot([], [], label=f"{curve.label}: {law_text(curve)}", **line)
    if is_log and curve.unit != "MiB":  # of memory the constant is most
        exponent = curve.law["expected"]["exponent"]
        guide = values[-1] * (x / sizes[-1]) ** exponent
        axes.plot(x, guide, color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)


def law_function(law: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Size -> value by the chosen law."""
    found = law[law["chosen"]]
    if law["chosen"] == "power":
        return lambda size: found["coefficient"] * size ** found["exponent"]
    return lambda size: found["constant"] + found["slope"] * size ** found["exponent"]


def law_text(curve: Curve) -> str:
    """``25 ms + 9.6 ms per 1,000 rows``, or ``∝ images^1.9, 95 % 1.8 to 2.0``; and the expected."""
    law = curve.law
    if law is None:
        raise ValueError(f"{curve.label} has no law")
    found, expected = law[law["chosen"]], law["expected"]
    if law["chosen"] == "power":
        low, high = found["exponent_95"]
        power = _power(curve.axis, found["exponent"])
        text = f"∝ {power}, 95 % {low:.2f} to {high:.2f}"
    else:
        factor, per = _UNITS[curve.axis, round(found["exponent"])]
        slope = found["slope"] * factor
        text = (
            f"{three_digits(found['constant'])} {curve.unit} + "
            f"{three_digits(slope)} {curve.unit} per {per}"
        )
    return f"{text} (expected ∝ {_power(curve.axis, expected['exponent'])}{_offset(expected)})"


def _power(axis: str, exponent: float) -> str:
    symbol = _SYMBOLS[axis]
    if exponent in (1, 2):
        return symbol + {1: "", 2: "²"}[int(exponent)]
    return f"{symbol}^{exponent:.2f}"


def _offset(expected: Mapping[str, Any]) -> str:
    return " and a constant" if expected["form"].startswith("a +") else ""


def _scaled(law: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """The law with numbers in the unit of the chart, under names without unit."""
    power, affine = law["power"], law["affine"]
    (unit,) = (key.removeprefix("constant_") for key in affine if _is_constant(key))
    return {
        "expected": law["expected"],
        "chosen": law["chosen"],
        "power": {
            "coefficient": scale * power[f"coefficient_{unit}"],
            "exponent": power["exponent"],
            "exponent_95": power["exponent_95"],
        },
        "affine": {
            "constant": scale * affine[f"constant_{unit}"],
            "slope": scale * affine[f"slope_{unit}"],
            "exponent": affine["exponent"],
        },
    }


def _is_constant(key: str) -> bool:
    return key.startswith("constant_") and not key.startswith("constant_95")
