"""Latency statistics, and memory over time."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchline.runtime.benchmark.stats import summarize
from patchline.runtime.errors import ConfigurationError

_STATM = Path("/proc/self/statm")
_SETTLED = 0.1
"""The share of a run before which memory may still grow: caches fill, kernels are loaded."""


def latency(samples_ms: list[float]) -> dict[str, float]:
    """The statistics of times in milliseconds, by the rules of ``benchmark-engine``."""
    return dataclasses.asdict(summarize(samples_ms))


def medians_of(times_ms: Mapping[str, list[float]]) -> dict[str, float]:
    """Median time per candidate."""
    return {name: statistics.median(times) for name, times in times_ms.items()}


def paired_median(
    first: list[float], second: list[float], of: Callable[[float, float], float]
) -> float:
    """The median over rounds of what two candidates of the same round give."""
    return round(statistics.median(of(a, b) for a, b in zip(first, second, strict=True)), 4)


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes, by the wall clock."""
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def host_bytes() -> int:
    """Resident memory of this process.

    Raises:
        ConfigurationError: this system does not tell.
    """
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError as error:
        raise ConfigurationError(f"{_STATM} cannot be read: {error.strerror}") from error
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Growth:
    """One quantity in bytes, looked at now and then in a long run.

    Attributes:
        steps: at which steps it was looked at, ascending.
        values: in bytes.
    """

    steps: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def add(self, step: int, value: int) -> None:
        """Keep one sample."""
        self.steps.append(step)
        self.values.append(value)

    def summary(self) -> dict[str, Any]:
        """First, last and largest value, and growth after the first tenth of the run."""
        settled = [i for i, step in enumerate(self.steps) if step >= _SETTLED * self.steps[-1]]
        steps = [self.steps[i] for i in settled]
        values = [self.values[i] for i in settled]
        slope = np.polyfit(steps, values, 1)[0] if len(steps) > 1 else 0.0
        return {
            "first_bytes": self.values[0],
            "last_bytes": self.values[-1],
            "max_bytes": max(self.values),
            "settled_growth_bytes": values[-1] - values[0],
            "settled_slope_bytes_per_1000": round(float(slope) * 1000, 1),
            "samples": len(self.values),
        }
