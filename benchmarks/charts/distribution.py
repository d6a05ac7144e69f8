"""How the times of one frame are spread: the share of calls that took at most so long."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patchline.benchmarks.charts.style import COLORS, DASHES
from patchline.runtime.benchmark.stats import percentile

_BEYOND = 1.25
"""How far past the largest p99 is still drawn, as a factor; the rest is counted."""


def draw_distribution(axes: Any, samples_ms: Mapping[str, Sequence[float]]) -> None:
    """Draw the whole model, its backbone and the head, which is their difference call by call.

    Args:
        axes: to draw on.
        samples_ms: times of ``model`` and ``backbone``, as many of both.
    """
    whole, backbone = (np.asarray(samples_ms[name]) for name in ("model", "backbone"))
    parts = {
        "whole model": whole,
        "backbone alone": backbone,
        "head (difference of the two, call by call)": whole - backbone,
    }
    limit = _BEYOND * max(percentile(sorted(times.tolist()), 99) for times in parts.values())
    for index, (name, times) in enumerate(parts.items()):
        _draw_part(axes, name, np.sort(times), index, limit)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 99], ["0", "25", "50", "75", "99"])
    axes.set_xlabel("time of one frame, ms")
    axes.set_ylabel("calls that took at most so long, %")


def _draw_part(axes: Any, name: str, ordered: Any, index: int, limit: float) -> None:
    values = ordered.tolist()
    median, p99 = statistics.median(values), percentile(values, 99)
    label = f"{name}: median {median:.1f} ms, p99 {p99:.1f} ms, {len(values)} calls"
    if beyond := sum(value > limit for value in values):
        label += f", {beyond} beyond the axis (up to {values[-1]:.0f} ms)"
    color = COLORS[index]
    shares = 100 * np.arange(len(values) + 1) / len(values)
    # From 0 % at the first time to 100 % at the last.
    axes.step(
        [values[0], *values],
        shares,
        where="post",
        color=color,
        linestyle=DASHES[index],
        label=label,
    )
    axes.plot([median], [50], color=color, marker="o")
    axes.plot([p99], [99], color=color, marker="v", markersize=7)
