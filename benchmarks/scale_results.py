"""What the scale benchmark found, as its results file has it: rates, ratios and the calculation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchline.benchmarks.report import pair_ratios, summarize
from patchline.benchmarks.scale_calculation import calculation, inputs_of
from patchline.benchmarks.scale_calls import Timed, median_start_s

PLANT_CLASSES, PLANT_PICTURES = 256, 1_000_000
"""What the calculation is for."""


@dataclass
class Measured:
    """What was measured, round by round, by the number of workers; 0 is without Ray.

    Attributes:
        classes: calls of ``export-model``.
        archive: calls of ``score-archive``.
        cluster_s: starts of the cluster.
        overheads: milliseconds per empty task, by its kind.
    """

    classes: dict[int, list[Timed]] = field(default_factory=dict)
    archive: dict[int, list[Timed]] = field(default_factory=dict)
    cluster_s: dict[int, list[float]] = field(default_factory=dict)
    overheads: list[dict[str, float]] = field(default_factory=list)


def report(measured: Measured, part_pictures: float, partition_size: int) -> dict[str, Any]:
    """Everything that was measured, and what is calculated from it.

    Args:
        measured: at least one call of each way, and of the empty tasks.
        part_pictures: of a part, on average.
        partition_size: pictures of a whole part.
    """
    overhead = {
        name.removesuffix("_ms"): [found[name] for found in measured.overheads]
        for name in measured.overheads[0]
    }
    medians_s = {name: statistics.median(times) / 1e3 for name, times in overhead.items()}
    part_s = max(medians_s["part_on_ray"] - medians_s["part_without_ray"], 0.0)
    plant_parts = math.ceil(PLANT_PICTURES / partition_size)
    return {
        "cluster_start_ms": {
            str(way): summarize([1e3 * value for value in times])
            for way, times in measured.cluster_s.items()
        },
        "export": _ways(measured.classes, 1.0, "classes_per_minute"),
        "archive": _ways(measured.archive, part_pictures, "pictures_per_second"),
        "empty_task_ms": {name: summarize(times) for name, times in overhead.items()},
        "calculation": {
            "export": _calculated(
                measured.classes, medians_s["class_on_ray"], PLANT_CLASSES, 1, "classes_per_minute"
            ),
            "archive": _calculated(
                measured.archive, part_s, plant_parts, partition_size, "pictures_per_second"
            ),
        },
    }


def _ways(calls: Mapping[int, Sequence[Timed]], size: float, unit: str) -> dict[str, Any]:
    """Each way's calls; ``size`` is what a task holds of what is counted."""
    alone, per_s = calls[0], 60.0 if unit.endswith("minute") else 1.0
    found: dict[str, Any] = {}
    for way, timed in calls.items():
        workers = max(way, 1)
        whole_s = [call.whole_s for call in timed]
        steps_s = [call.step_s / workers for call in timed]
        found[str(way)] = {
            "tasks": timed[0].tasks,
            "call_ms": summarize([1e3 * value for value in whole_s]),
            "start_ms": summarize([1e3 * call.start_s(workers) for call in timed]),
            "step_ms": summarize([1e3 * call.step_s for call in timed]),
            unit: spread([per_s * size * call.tasks_per_second(workers) for call in timed]),
        }
        if way:
            found[str(way)] |= {
                "rate_over_no_ray": pair_ratios([call.step_s for call in alone], steps_s),
                "call_speedup_over_no_ray": pair_ratios([call.whole_s for call in alone], whole_s),
                "step_longer_than_without_ray_ms": spread(
                    [1e3 * (a.step_s - b.step_s) for a, b in zip(timed, alone, strict=True)]
                ),
            }
    return found


def _calculated(
    calls: Mapping[int, Sequence[Timed]], driver_s: float, tasks: int, size: float, unit: str
) -> dict[str, Any]:
    base = min(way for way in calls if way)
    step_s = statistics.median(call.step_s for call in calls[base])
    inputs = inputs_of(median_start_s(calls[base], base), step_s, driver_s)
    ran = [
        (way, timed[0].tasks, statistics.median(call.whole_s for call in timed))
        for way, timed in calls.items()
        if way > base  # the inputs are from that one
    ]
    return calculation(inputs, tasks, size, unit, ran)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, in the unit of the values."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    found = {"median": statistics.median(values), "q1": quartiles[0], "q3": quartiles[2]}
    return {name: round(value, 3) for name, value in found.items()}
