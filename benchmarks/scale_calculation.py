"""What more workers would bring: a calculation from measured times, and no measurement (issue 9).

As Amdahl has it: a fixed start, a share per task that the driver does for all workers one after
another, and the task itself, which any worker does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WORKERS = (1, 2, 4, 8, 16, 32, 64)

FORMULA = "start + tasks * driver + ceil(tasks / workers) * task"

LABEL = (
    "calculated, not measured: seconds of a call on a cluster that runs already, of nodes like "
    "this machine"
)

DRIVER = (
    "per empty task on one worker, with the trip there and back: at most that of the driver, so "
    "that more workers may bring more than this"
)

LEFT_OUT = (
    "the file system that all nodes share, and the network",
    "workers that wait for memory, caches or the driver's core on one node",
    "nodes of another speed, nodes that die, tasks of unequal length",
)


@dataclass(frozen=True)
class Inputs:
    """Measured times, in seconds.

    Attributes:
        start_s: of a call, once, whatever the number of tasks.
        driver_s: of the driver, for each task.
        task_s: of a worker, for each task.
    """

    start_s: float
    driver_s: float
    task_s: float

    def call_s(self, tasks: int, workers: int) -> float:
        """Seconds of a call, by :data:`FORMULA`."""
        rounds = math.ceil(tasks / workers)
        return self.start_s + tasks * self.driver_s + rounds * self.task_s


def inputs_of(start_s: float, step_s: float, driver_s: float) -> Inputs:
    """Inputs from the call with one worker.

    Args:
        start_s: fixed start of that call.
        step_s: from the end of a task to the end of the next; the driver's share is in it.
        driver_s: that share, from tasks that do nothing.
    """
    return Inputs(start_s, driver_s, max(step_s - driver_s, 0.0))


def calculation(
    inputs: Inputs, tasks: int, size: float, unit: str, measured: Sequence[tuple[int, int, float]]
) -> dict[str, Any]:
    """The calculated calls as a part of a results file.

    Args:
        inputs: measured.
        tasks: of the call that is calculated.
        size: of a task in what is counted: 1 class, or the pictures of a part.
        unit: such as ``classes_per_minute``; per second where it does not end so.
        measured: workers, tasks and median seconds of calls that ran, to be held against it.
    """
    per_s = 60.0 if unit.endswith("minute") else 1.0
    alone_s = inputs.call_s(tasks, 1)
    return {
        "label": LABEL,
        "formula": f"call_s = {FORMULA}",
        "left_out": list(LEFT_OUT),
        "driver": DRIVER,
        "inputs": {
            "start_s": round(inputs.start_s, 4),
            "driver_s": round(inputs.driver_s, 6),
            "task_s": round(inputs.task_s, 5),
            "tasks": tasks,
        },
        "workers": [
            {
                "workers": workers,
                "call_s": round(call_s := inputs.call_s(tasks, workers), 2),
                unit: round(per_s * tasks * size / call_s, 2),
                "speedup_over_one": round(alone_s / call_s, 3),
            }
            for workers in WORKERS
        ],
        "held_against_calls_that_ran": [
            {
                "workers": workers,
                "tasks": ran,
                "calculated_s": round(inputs.call_s(ran, workers), 3),
                "measured_s": round(measured_s, 3),
                "measured_over_calculated": round(measured_s / inputs.call_s(ran, workers), 4),
            }
            for workers, ran, measured_s in measured
        ],
    }
