"""Points of several series, each in a process of its own, in an order that no drift can follow."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchline.benchmarks.report import summarize
from patchline.benchmarks.scaling.laws import FEWEST_SIZES, Expected, choose_law
from patchline.benchmarks.scaling.names import PEAK
from patchline.runtime.errors import DataError
from patchline.runtime.interrupt import raise_if_interrupted

Visit = Mapping[str, Any]
"""What one process found: ``times_ms`` by quantity, ``memory_mib``, ``facts``."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Series:
    """One curve: the same work at several sizes.

    Attributes:
        name: for people.
        axis: what the size is, with its unit where it has one, such as ``bank_rows``.
        sizes: ascending.
        module: below ``patchline.benchmarks.scaling``; it measures one point.
        arguments: of the module for a size.
        laws: what is expected of each quantity, and of ``peak``, the memory.
    """

    name: str
    axis: str
    sizes: Sequence[int]
    module: str
    arguments: Callable[[int], dict[str, Any]]
    laws: Mapping[str, Expected]


@dataclass
class Collected:
    """What was found of one series, by size; and for which sizes nothing was, and why."""

    visits: dict[int, list[Visit]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


def visit_order(sizes: Sequence[int], turn: int) -> list[int]:
    """Ascending in even rounds and descending in odd ones: a drift cancels over two of them."""
    return sorted(sizes, reverse=turn % 2 == 1)


def collect(all_series: Sequence[Series], rounds: int, tell: Tell) -> dict[str, Collected]:
    """Visit every point of every series once a round.

    A point that fails is told, noted and left out; the others go on.

    Args:
        all_series: visited one after the other in each round.
        rounds: how often.
        tell: takes a line of progress.
    """
    found = {series.name: Collected() for series in all_series}
    for turn in range(rounds):
        for series in all_series:
            for size in visit_order(series.sizes, turn):
                visit = _visit(series, size, found[series.name])
                head = f"round {turn + 1} of {rounds}: {series.name}, {size:,} {series.axis}"
                tell(f"{head}: {_in_words(visit)}")
    return found


def run_point(module: str, arguments: dict[str, Any]) -> Visit:
    """One point in a process of its own.

    Raises:
        DataError: the process fails; its messages are on stderr.
    """
    command = [sys.executable, "-m", f"patchline.benchmarks.scaling.{module}"]
    done = subprocess.run(
        [*command, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    raise_if_interrupted()
    if done.returncode != 0:
        raise DataError(_reason(done.returncode))
    visit: Visit = json.loads(done.stdout.splitlines()[-1])
    return visit


def report(series: Series, found: Collected) -> dict[str, Any]:
    """Points and laws of one series, for strict JSON."""
    points = [_point(series.axis, size, found.visits[size]) for size in sorted(found.visits)]
    reported: dict[str, Any] = {"name": series.name, "axis": series.axis, "points": points}
    if len(points) >= FEWEST_SIZES:
        reported["laws"] = {
            name: _law(name, expected, series.axis, points)
            for name, expected in series.laws.items()
        }
    if found.failures:
        reported["failed"] = [
            {series.axis: size, "reason": reason} for size, reason in found.failures.items()
        ]
    return reported


def _law(
    name: str, expected: Expected, axis: str, points: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    if name == PEAK:
        return choose_law(
            [point[axis] for point in points],
            [point["memory"]["peak_mib"] for point in points],
            expected,
            "mib",
        )
    return choose_law(
        [point[axis] for point in points],
        [point["times"][name]["median_ms"] for point in points],
        expected,
        "ms",
    )


def _visit(series: Series, size: int, found: Collected) -> Visit | None:
    try:
        visit = run_point(series.module, series.arguments(size))
    except DataError as error:
        found.failures[size] = str(error)
        return None
    found.visits.setdefault(size, []).append(visit)
    return visit


def _point(axis: str, size: int, visits: Sequence[Visit]) -> dict[str, Any]:
    times = {
        name: summarize([time for visit in visits for time in visit["times_ms"][name]])
        | {"visits_median_ms": [_median(visit["times_ms"][name]) for visit in visits]}
        for name in visits[0]["times_ms"]
    }
    memory: dict[str, Any] = {
        f"{kind}_mib": _median([visit["memory_mib"][kind] for visit in visits])
        for kind in visits[0]["memory_mib"]
    }
    memory["visits_peak_mib"] = [visit["memory_mib"][PEAK] for visit in visits]
    return {axis: size, "times": times, "memory": memory, "facts": dict(visits[0]["facts"])}


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def _in_words(visit: Visit | None) -> str:
    if visit is None:
        return "failed"
    times = (f"{name} {_median(times):,.1f} ms" for name, times in visit["times_ms"].items())
    return f"{', '.join(times)}, peak {visit['memory_mib'][PEAK]:,.0f} MiB"


def _reason(status: int) -> str:
    if status < 0:
        return f"the process was ended by signal {-status}" + (
            ", as by a system without memory left" if status == -9 else ""
        )
    return f"the process ended with status {status}"
