"""What every benchmark shares: the machine's description, alternation, the result file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")
"""Where results are committed, seen from the root of a checkout."""

_PACKAGES = ("patchline", "torch", "timm", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def summarize(samples_ms: list[float]) -> dict[str, float]:
    """Median and quartiles of times in milliseconds, with their number."""
    ordered = sorted(samples_ms)
    quartiles = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "q1_ms": round(quartiles[0], 3),
        "q3_ms": round(quartiles[2], 3),
        "min_ms": round(ordered[0], 3),
        "runs": len(ordered),
    }


def alternate(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Time candidates in turn, A B A B, so that a drift of the machine meets all of them.

    Returns:
        Milliseconds per candidate, one per round.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            elapsed_ms = 1e3 * (time.perf_counter() - started)
            if turn >= warmup:
                times_ms[name].append(elapsed_ms)
    return times_ms


def write_result(suite: str, results: dict[str, Any], out: Path | None) -> Path:
    """Write ``<version>/<suite>--<machine>.json`` below ``out`` (:data:`RESULTS` by default).

    The file is strict JSON: NaN is an error.
    """
    version = importlib.metadata.version("patchline")
    machine = describe_machine()
    document = {
        "suite": suite,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "results": results,
    }
    path = (out or RESULTS) / version / f"{suite}--{_slug(machine)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system and package versions."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if match:
            return match[1].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _slug(machine: dict[str, Any]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-")
    return f"{name}-{machine['cores']}-cores"
