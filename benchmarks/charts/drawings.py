"""The charts of each suite: which curves they show, and what is written around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchline.benchmarks.charts.curves import Curve, draw_curves, memory_curve, time_curve
from patchline.benchmarks.charts.distribution import draw_distribution
from patchline.benchmarks.charts.read import Points, Results, peer_points
from patchline.benchmarks.charts.style import COLORS, INK, MARKERS, SOFT, write_chart
from patchline.benchmarks.charts.workers import draw_workers
from patchline.benchmarks.scaling.names import CORESET, CROSS_FIT, FEATURES, FIT, FRAME

_GUIDE = "Bars: quartiles of all calls. Dotted: the expected exponent through the last point"


def draw_latency(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """How the times of one frame are spread; nothing where an older file kept no times."""
    found = results.results
    if "samples_ms" not in found:
        return []
    what = f"{found['backbone']}, {found['image_size_px']} px, {found['bank_rows']} rows"
    name = results.suite.removeprefix("latency-")
    path = folder / f"latency-distribution-{name}--{results.machine}.svg"
    write_chart(
        path,
        lambda panels: draw_distribution(panels[0], found["samples_ms"]),
        title="Time of one frame: how it is spread",
        note=results.note(f"Dot: median, triangle: p99; {what}", found["engine"]),
    )
    return [path]


def draw_bank(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """Time of one frame and memory against the rows of the bank, with the peers' where known."""
    found = results.results
    what = f"{found['backbone']}, {found['image_size_px']} px, one frame"
    times = [time_curve(series, _first(series)) for series in found["series"]]
    # The search alone is no program that anybody runs.
    whole = [series for series in found["series"] if _first(series) == FRAME]
    return [
        _draw_log(
            folder / f"scaling-bank-latency--{results.machine}.svg",
            times,
            "Time of one frame against the rows of the memory bank",
            results.note(f"{_GUIDE}; {what}", found["engine"]),
            "time of one frame, ms",
            peer_points(everything, results, "peers-latency", "median_ms"),
        ),
        _draw_log(
            folder / f"scaling-bank-memory--{results.machine}.svg",
            [memory_curve(series) for series in whole],
            "Peak memory of a process that judges, against the rows of the memory bank",
            results.note(f"{_spread(results)}; {what}", found["engine"]),
            "largest resident set, MiB",
            peer_points(everything, results, "peers-memory", "peak_mib"),
        ),
    ]


def draw_image(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """Time and memory against the side of the frames."""
    return [_draw_pair(results, folder, "side of the frame", "time of one frame, ms")]


def draw_batch(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """Time and memory of one call against the frames in it."""
    return [_draw_pair(results, folder, "frames in a call", "time of one call, ms")]


def draw_fit(results: Results, folder: Path, everything: list[Results]) -> list[Path]:
    """Time and memory of a fit and its parts against the training images."""
    found = results.results
    what = (
        f"drawn features, {found['patches_per_image']} rows of {found['dimension']} per image, "
        f"bank {100 * found['coreset_ratio']:g} % or {found['fixed_rows']} rows"
    )
    times = [
        replace(time_curve(series, quantity, unit="s"), label=_fit_label(series["name"], quantity))
        for series in found["series"]
        for quantity in _shown(series)
    ]
    kept = [series for series in found["series"] if CORESET not in series["points"][0]["times"]]
    return [
        _draw_log(
            folder / f"scaling-fit-time--{results.machine}.svg",
            times,
            "Time of a fit and its parts against the training images",
            results.note(f"{_GUIDE}; {what}"),
            "time, s",
            {},
        ),
        _draw_log(
            folder / f"scaling-fit-memory--{results.machine}.svg",
            [memory_curve(series) for series in kept],
            "Peak memory of a fit against the training images",
            results.note(f"Hollow: the features lie on disk; {what}"),
            "largest resident set, MiB",
            {},
            limit=_limit(found),
        ),
    ]


Draw = Callable[[Results, Path, list[Results]], list[Path]]

DRAWINGS: dict[str, Draw] = {
    "latency-": draw_latency,
    "scale": draw_workers,
    "scaling-bank": draw_bank,
    "scaling-image": draw_image,
    "scaling-batch": draw_batch,
    "scaling-fit": draw_fit,
}
"""By how the name of the suite begins."""


def _draw_log(
    path: Path,
    curves: Sequence[Curve],
    title: str,
    note: str,
    y_label: str,
    peers: Points,
    limit: tuple[float, str] | None = None,
) -> Path:
    def draw(panels: list[Any]) -> None:
        (axes,) = panels
        draw_curves(axes, curves, is_log=True)
        axes.set_ylabel(y_label)
        _draw_peers(axes, peers, len(curves))
        if limit is not None:
            value, label = limit
            axes.axhline(value, color=SOFT, linewidth=1, linestyle=(0, (8, 3)), label=label)
            axes.set_ylim(top=max(axes.get_ylim()[1], 1.2 * value))

    write_chart(path, draw, title=title, note=note)
    return path


def _draw_pair(results: Results, folder: Path, against: str, y_label: str) -> Path:
    found = results.results

    def draw(panels: list[Any]) -> None:
        for axes, label, curves in (
            (panels[0], y_label, [time_curve(s, _first(s)) for s in found["series"]]),
            (panels[1], "largest resident set, MiB", [memory_curve(s) for s in found["series"]]),
        ):
            draw_curves(axes, curves, is_log=False)
            axes.set_ylabel(label)

    path = folder / f"{results.suite}--{results.machine}.svg"
    what = f"{found['backbone']}, bank of {found['bank_rows']} rows"
    if results.suite == "scaling-batch":
        what += f", {found['image_size_px']} px"
    note = results.note(f"{_spread(results)}; {what}", found["engine"])
    title = f"Time and memory against the {against}"
    write_chart(path, draw, title=title, note=note, panels=2)
    return path


def _draw_peers(axes: Any, peers: Points, taken: int) -> None:
    for index, (name, points) in enumerate(peers.items()):
        color = COLORS[(taken + index) % len(COLORS)]
        x, y = zip(*points, strict=True)
        axes.plot(
            x,
            y,
            color=color,
            marker=MARKERS[(taken + index) % len(MARKERS)],
            markeredgecolor=INK,
            markeredgewidth=0.6,
            linestyle="none",
            label=f"{name} (run beside its peers)",
        )
    if peers:
        low, high = axes.get_ylim()
        values = [value for points in peers.values() for _, value in points]
        axes.set_ylim(min(low, min(values) / 1.6), max(high, max(values) * 1.6))


def _first(series: Any) -> str:
    """The quantity of a series that is timed."""
    return str(next(iter(series["points"][0]["times"])))


def _shown(series: Any) -> list[str]:
    timed = series["points"][0]["times"]
    return (
        [FIT, CROSS_FIT]
        if FIT in timed
        else [name for name in (FEATURES, CORESET) if name in timed]
    )


def _fit_label(name: str, quantity: str) -> str:
    return "cross-fit within it" if quantity == CROSS_FIT else name


def _limit(found: Any) -> tuple[float, str]:
    """What the process of a fit may hold, and what that is called."""
    (whole,) = (series for series in found["series"] if FIT in series["points"][0]["times"])
    imported = whole["points"][0]["memory"]["baseline_mib"]
    budget = found["memory_budget_mib"]
    label = f"the fit's memory budget: {budget:,} MiB above the {imported:,.0f} of what it imports"
    return imported + budget, label


def _spread(results: Results) -> str:
    rounds = results.results["rounds"]
    return f"{rounds} processes a point; bars: quartiles of calls, least and most memory"
