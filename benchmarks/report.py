"""What every benchmark shares: alternation, the machine's and the run's record, the result file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchline.benchmarks.processor import instruction_sets
from patchline.benchmarks.schema import MACHINE_PATH, check_file, machine_slug
from patchline.runtime.benchmark import machine as machines
from patchline.runtime.files import write_atomically

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


def pair_ratios(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of one candidate's times over another's, pair by pair of rounds."""
    ratios = sorted(time / other for time, other in zip(times, base, strict=True))
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    named = zip(("median", "q1", "q3"), (statistics.median(ratios), *quartiles[::2]), strict=True)
    return {name: round(value, 4) for name, value in named}


def write_result(suite: str, results: dict[str, Any], out: Path | None) -> Path:
    """Write ``<version>/<suite>--<machine>.json`` below ``out`` (:data:`RESULTS` by default).

    The file is strict JSON: NaN is an error. Paths in it are reduced to their last part. It is
    checked after it was written, so that nothing measured is lost to a fault of its form.

    Raises:
        DataError: the file is not what :mod:`patchline.benchmarks.schema` says.
    """
    machine = describe_machine()
    document = {
        "suite": suite,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "run": describe_run(),
        "results": results,
    }
    path = result_path(suite, out, machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(without_folders(document), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
    check_file(path)
    return path


def result_path(suite: str, out: Path | None, machine: Mapping[str, Any]) -> Path:
    """Where :func:`write_result` writes the result of a suite on a machine as described below."""
    name = f"{suite}--{machine_slug(machine['cpu'], machine['cores'])}.json"
    return (out or RESULTS) / importlib.metadata.version("patchline") / name


def describe_machine() -> dict[str, Any]:
    """Processor, its instruction sets, cores, memory, system and package versions."""
    found = machines.describe_machine()
    return {
        "cpu": found.cpu,
        "instruction_sets": instruction_sets(machines.read_text(Path("/proc/cpuinfo"))),
        "cores": found.cores,
        "memory_mib": found.memory_bytes and found.memory_bytes >> 20,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def describe_run() -> dict[str, Any]:
    """What a rerun needs: command, commit, time, load, threads; and begin the next run's clock."""
    commit = commit_of(Path(__file__).resolve())
    run = {
        "command": _command(sys.orig_argv),
        "commit": commit and commit.digest,
        "is_dirty": commit and commit.is_dirty,
        "duration_s": round(time.monotonic() - _clock.at_s, 1),
        "load_average_start": _clock.load_average,
        "load_average_end": _load_average(),
        "threads": {
            "usable_cores": _usable_cores(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
            "torch": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
        },
    }
    _clock.restart()
    return run


@dataclass(frozen=True)
class Commit:
    """A commit's digest, and whether the code of the checkout differs from it."""

    digest: str
    is_dirty: bool


def commit_of(module: Path) -> Commit | None:
    """The commit of the checkout that ``module`` is tracked in; ``None`` where it is in none.

    Results, README and other pages may differ: they are what a benchmark is run to change.
    """
    try:
        git(module.parent, "ls-files", "--error-unmatch", module.name)
        root = Path(git(module.parent, "rev-parse", "--show-toplevel"))
        digest = git(root, "rev-parse", "HEAD")
        code = ("*.py", "*.toml", ":(exclude,glob)tests/**", ":(exclude)benchmarks/figures.toml")
        return Commit(digest, bool(git(root, "status", "--porcelain", "--", *code)))
    except (OSError, subprocess.SubprocessError):
        return None


def git(folder: Path, *words: str) -> str:
    """What git says about a folder, without the lock that somebody else's git may need.

    Raises:
        OSError: there is no git.
        CalledProcessError: git refuses, for instance outside a checkout.
    """
    program = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def without_folders(value: Any) -> Any:
    """The same with paths from a machine's root reduced to their last part, in every text."""
    if isinstance(value, str):
        return MACHINE_PATH.sub("", value)
    if isinstance(value, Mapping):
        return {without_folders(name): without_folders(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(part) for part in value]
    return value


def _command(words: list[str]) -> list[str]:
    """The words of a command line, files reduced to their last part; Python is just that."""
    return ["python", *("=".join(map(_last_part, word.split("="))) for word in words[1:])]


def _last_part(word: str) -> str:
    return re.split(r"[/\\]", word.rstrip("/\\"))[-1]


@dataclass
class _Clock:
    """When this run began, and how busy the machine was."""

    at_s: float = field(default_factory=time.monotonic)
    load_average: list[float] | None = field(default_factory=lambda: _load_average())

    def restart(self) -> None:
        self.at_s, self.load_average = time.monotonic(), _load_average()


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):  # not a Unix
        return None


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


_clock = _Clock()
