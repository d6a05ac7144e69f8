"""What a runtime costs before its first frame: its size on disk and the time of its imports."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.benchmarks.peers.catalogue import OWN
from patchline.benchmarks.peers.conversation import environment
from patchline.benchmarks.peers.material import Plan
from patchline.benchmarks.peers.part_latency import ratios
from patchline.benchmarks.peers.record import Record, spread
from patchline.runtime.errors import EngineError

ROUNDS = 7

_CUDA = re.compile(
    r"/(nvidia|triton)/|/torch/lib/lib(torch_)?(cuda|nv|caffe2_nv)|/torch/lib/.*cuda"
)


@dataclass(frozen=True)
class Runtime:
    """What must be there to judge a frame.

    Attributes:
        name: for the table.
        environment: of :mod:`patchline.benchmarks.peers.environments`.
        code: its imports.
    """

    name: str
    environment: str
    code: str


_FRAME = "import cv2, numpy; "
RUNTIMES = {
    OWN: [Runtime(OWN, OWN, "import cv2, onnxruntime; import patchline.runtime.engine")],
    "anomalib": [
        Runtime("onnxruntime by hand", "onnxruntime", f"{_FRAME}import onnxruntime"),
    ],
    "openvino": [
        Runtime(
            "anomalib's OpenVINOInferencer",
            "anomalib",
            "import openvino; from anomalib.deploy import OpenVINOInferencer",
        ),
        Runtime("openvino by hand", "openvino", f"{_FRAME}import openvino"),
    ],
    "openvino-float32": [],  # the same
    "patchcore-inspection": [
        Runtime("patchcore-inspection", "patchcore-inspection", "import faiss, torch, torchvision")
    ],
    "torch": [Runtime("torch", "torch", "import torch, torchvision")],
}


def measure_install(plan: Plan, names: list[str]) -> dict[str, Any]:
    """Rows per runtime: the size of its environment, and its import in fresh processes, in turn."""
    record = Record(plan.say)
    pythons: dict[str, tuple[Runtime, Path]] = {}
    for runtime in (one for name in (OWN, *names) for one in RUNTIMES[name]):
        python = record.attempt(
            {"peer": runtime.name},
            lambda runtime=runtime: plan.environments.python(runtime.environment),  # type: ignore[misc]
        )
        if python is not None:
            pythons[runtime.name] = runtime, python
    times = _import_times(plan, pythons, record)
    for name, samples in times.items():
        runtime, python = pythons[name]
        row = {"peer": name, **spread(samples, "ms")}
        if name != OWN and OWN in times:
            row["patchline_over_peer"] = ratios(times[OWN], samples)
        if runtime.environment not in plan.environments.given:
            row |= _sizes(plan.environments.folder(runtime.environment))
        record.rows.append(row)
    return record.document(
        what="import in a fresh process, interpreter start included; size of the whole environment",
        python_alone=spread(_start_times(plan, pythons), "ms") if pythons else {},
        notes=["without_cuda_mib is what PyTorch's own CPU wheels would leave"],
    )


def _import_times(
    plan: Plan, pythons: dict[str, tuple[Runtime, Path]], record: Record
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in pythons}
    rounds = min(ROUNDS, plan.rounds)
    for turn in range(rounds + 1):  # the first one fills the page cache
        plan.say(f"imports, round {turn} of {rounds}")
        for name in list(times):
            runtime, python = pythons[name]
            elapsed = record.attempt(
                {"peer": name},
                lambda python=python, runtime=runtime: start_ms(  # type: ignore[misc]
                    python, runtime.code, plan.threads
                ),
            )
            if elapsed is None:
                times.pop(name)
            elif turn:
                times[name].append(elapsed)
    return times


def _start_times(plan: Plan, pythons: dict[str, tuple[Runtime, Path]]) -> list[float]:
    python = next(iter(pythons.values()))[1]
    return [start_ms(python, "pass", plan.threads) for _ in range(min(ROUNDS, plan.rounds))]


def start_ms(python: Path, code: str, threads: int) -> float:
    """Wall time of a fresh process.

    Raises:
        EngineError: the code fails; the last line of its error is named.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [str(python), "-c", code], env=environment(threads), capture_output=True, check=False
    )
    elapsed_ms = 1e3 * (time.perf_counter() - started)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
        raise EngineError(f"{code} failed: {lines[-1]}")
    return elapsed_ms


def _sizes(folder: Path) -> dict[str, float]:
    """MiB of an environment, every file once, and without what only a GPU needs."""
    whole = cuda = 0
    for path in _files(folder):
        size = path.stat().st_size
        whole += size
        cuda += size if _CUDA.search(path.as_posix()) else 0
    return {
        "installed_mib": round(whole / (1 << 20), 1),
        "without_cuda_mib": round((whole - cuda) / (1 << 20), 1),
    }


def _files(folder: Path) -> list[Path]:
    found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return [path for path in found if not path.is_symlink()]
