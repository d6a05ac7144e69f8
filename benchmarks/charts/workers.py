"""The chart of :mod:`patchline.benchmarks.scale`: what ran on workers, beside a calculation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchline.benchmarks.charts.read import Results
from patchline.benchmarks.charts.style import COLORS, MARKERS, SOFT, log_axes, write_chart

_PANELS = (
    ("export", "classes_per_minute", "classes per minute"),
    ("archive", "pictures_per_second", "pictures per second"),
)

_DASHES = (0, (2, 1.5))


def draw_workers(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """Classes per minute and pictures per second against workers."""
    found = results.results

    def draw(panels: list[Any]) -> None:
        for axes, (part, unit, label) in zip(panels, _PANELS, strict=True):
            _draw(axes, found, part, unit, is_named=axes is panels[0])
            axes.set_xlabel("workers, a core each")
            axes.set_ylabel(label)

    path = folder / f"scale-workers--{results.machine}.svg"
    tasks = {part: found["calculation"][part]["inputs"]["tasks"] for part, _, _ in _PANELS}
    note = results.note(
        f"Bars: quartiles of {found['rounds']} calls, without their fixed starts. Dotted: a "
        f"calculation of whole calls ({tasks['export']:,} classes; {tasks['archive']:,} parts of "
        f"{found['pictures_of_a_part']} pictures) and no measurement; file system and network "
        "are left out",
        f"{found['backbone']}, {found['image_size_px']} px",
    )
    title = "Classes and pictures against the workers of a Ray cluster"
    write_chart(path, draw, title=title, note=note, panels=2)
    return [path]


def _draw(axes: Any, found: Any, part: str, unit: str, *, is_named: bool) -> None:
    rates = {int(way): ran[unit] for way, ran in found[part].items()}
    alone = rates.pop(0)["median"]
    calculated = found["calculation"][part]["workers"]
    sizes = [row["workers"] for row in calculated]
    values = [row[unit] for row in calculated]
    medians = [rate["median"] for rate in rates.values()]
    reach = [
        [max(rate["median"] - rate["q1"], 0) for rate in rates.values()],
        [max(rate["q3"] - rate["median"], 0) for rate in rates.values()],
    ]
    # One legend lies below both panels.
    names = ("measured on this machine", "calculated", "without Ray, measured")
    labels = names if is_named else (None,) * 3
    axes.errorbar(
        list(rates),
        medians,
        reach,
        color=COLORS[0],
        marker=MARKERS[0],
        linestyle="none",
        capsize=2,
        label=labels[0],
        zorder=3,
    )
    axes.plot(sizes, values, color=COLORS[1], linestyle=_DASHES, label=labels[1])
    axes.axhline(alone, color=SOFT, linewidth=1, linestyle=(0, (8, 3)), label=labels[2])
    log_axes(axes, sizes, [*values, *medians, alone])
