"""One point in a process of its own: an engine over one model, one batch of frames again and again.

Run as ``python -m patchline.benchmarks.scaling.engine_point JSON``. As on a device, PyTorch is not
loaded here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from patchline.benchmarks.scaling.memory import memory_report, resident_mib
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.onnxruntime import import_onnxruntime

_WARM_UP_RUNS, _WARM_UP_S = 2, 0.2


def measure(
    model: Path, *, quantity: str, batch: int, seconds: float, least: int, threads: int
) -> dict[str, Any]:
    """Time one model.

    Args:
        model: an ``.onnx`` file with its manifest.
        quantity: what the times are called.
        batch: frames in one call.
        seconds: how long to measure,
        least: and how many calls at least.
        threads: of ONNX Runtime; 0 for one per core.

    Returns:
        Times in milliseconds; memory in MiB with everything imported (``baseline``), after the
        last call, and at most.
    """
    import_onnxruntime()
    baseline = resident_mib()
    times_ms: list[float] = []
    with open_engine(model, provider="cpu", threads=threads or None) as engine:
        size = engine.manifest.model_size
        frames = np.random.default_rng(0).integers(
            0, 256, (batch, size.height, size.width, 3), np.uint8
        )
        started, runs = time.perf_counter(), 0
        while runs < _WARM_UP_RUNS or time.perf_counter() - started < _WARM_UP_S:
            engine.infer(frames)
            runs += 1
        started = time.perf_counter()
        while len(times_ms) < least or time.perf_counter() - started < seconds:
            before = time.perf_counter()
            engine.infer(frames)
            times_ms.append(round(1e3 * (time.perf_counter() - before), 3))
        memory_mib = memory_report(baseline)
        description = engine.description
    return {
        "times_ms": {quantity: times_ms},
        "memory_mib": memory_mib,
        "facts": {"engine": description, "file_mib": round(model.stat().st_size / 2**20, 2)},
    }


def main() -> None:
    """Measure what the only argument says, as JSON, and print the result as JSON."""
    given = json.loads(sys.argv[1])
    print(json.dumps(measure(Path(given.pop("model")), **given)))  # noqa: T201


if __name__ == "__main__":
    main()
