"""``export-model`` and ``score-archive`` as a user calls them, timed for the scale benchmark.

A call is cut into its fixed start and a step per task. The start holds what a process does once:
imports, the connection to a cluster, the look at its nodes, the first and slower task of a worker.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchline.export.state import load_state
from patchline.runtime.archive.arrow import import_pyarrow
from patchline.runtime.errors import DataError

_EXPORT = "patchline.export.cli.export_model"
_SCORE = "patchline.runtime.cli.score_archive"


@dataclass(frozen=True)
class Timed:
    """One call.

    Attributes:
        whole_s: from its launch to its end.
        tasks: classes or parts.
        step_s: of a worker from the end of a task to the end of the next, the first one left out.
        digests: SHA-256 by what was compared: a bank, a model, a table of scores.
    """

    whole_s: float
    tasks: int
    step_s: float
    digests: Mapping[str, str]

    def start_s(self, workers: int) -> float:
        """What is left of the call without its steps; not below 0."""
        return max(self.whole_s - self.tasks / workers * self.step_s, 0.0)

    def tasks_per_second(self, workers: int) -> float:
        """Of so many workers once they are at it."""
        return workers / self.step_s


def export_all(
    data: Path,
    out: Path,
    names: Sequence[str],
    options: Sequence[str],
    *,
    workers: int,
    env: Mapping[str, str],
) -> Timed:
    """Make classes in one call.

    Args:
        data: of class folders.
        out: an empty folder, or none yet.
        names: of classes, or ``all``; one more than there are workers, at least.
        options: more of the command line.
        workers: that it has.
        env: of its process.

    Raises:
        DataError: the command failed, or there are too few classes.
    """
    words = ["--cls", *names, "--data", str(data), "--out", str(out), "--json", *options]
    launched = time.perf_counter()
    ended_s = [moment - launched for moment, line in _lines(_EXPORT, words, env) if "class" in line]
    whole_s = time.perf_counter() - launched
    return Timed(whole_s, len(ended_s), step_of(ended_s, workers), _model_digests(out))


def score_all(
    model: Path,
    images: str,
    out: Path,
    options: Sequence[str],
    *,
    workers: int,
    env: Mapping[str, str],
) -> Timed:
    """Score every picture of an archive.

    Args:
        model: an ``.onnx`` file.
        images: a pattern.
        out: an empty folder, or none yet.
        options: more of the command line.
        workers: that it has; at least one part more than these.
        env: of its process.

    Raises:
        DataError: the command failed, or there are too few parts.
    """
    words = ["--model", str(model), "--images", images, "--out", str(out), "--json", *options]
    launched = time.perf_counter()
    for _ in _lines(_SCORE, words, env):
        pass
    whole_s = time.perf_counter() - launched
    parts = sorted(out.glob("part-*.parquet"))
    written_s = sorted(part.stat().st_mtime_ns / 1e9 for part in parts)
    digests = {"scores": _table_digest(parts)}
    return Timed(whole_s, len(parts), step_of(written_s, workers), digests)


def step_of(ended_s: Sequence[float], workers: int) -> float:
    """Seconds of a worker per task, from the moments when tasks ended, ascending.

    Counted from when as many tasks are over as there are workers, so that each has had its first.

    Raises:
        DataError: no task is left to count.
    """
    counted = len(ended_s) - workers
    if counted < 1:
        raise DataError(
            f"{len(ended_s)} tasks are too few for {workers} workers: each has a first one that "
            "does not count. Give more --classes, or a smaller --partition-size"
        )
    return max(workers * (ended_s[-1] - ended_s[workers - 1]) / counted, 1e-6)


def check_same(before: Mapping[str, str], found: Mapping[str, str], way: str) -> None:
    """Refuse results that are not those of the first call, bit for bit.

    Raises:
        DataError: they differ.
    """
    names = sorted(before.keys() | found.keys())
    other = [name for name in names if before.get(name) != found.get(name)]
    if other:
        raise DataError(
            f"{', '.join(other)} of {way} are not those of the first call, bit for bit: ways that "
            "compute something different are not compared in speed"
        )


def median_start_s(calls: Sequence[Timed], workers: int) -> float:
    """Median of the fixed starts of calls."""
    return statistics.median(call.start_s(workers) for call in calls)


def _lines(
    module: str, words: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[float, dict[str, object]]]:
    """Run a command and give each line of JSON with the moment when it came."""
    program = [sys.executable, "-m", module, *words]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(env)
        ) as process,
    ):
        if process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        try:
            for line in process.stdout:
                yield time.perf_counter(), json.loads(line)
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
        if process.wait() != 0:
            errors.seek(0)
            last = " ".join(errors.read().split()[-80:])
            name = module.rpartition(".")[2].replace("_", "-")
            raise DataError(f"{name} ended with status {process.returncode}: {last}")


def _model_digests(folder: Path) -> dict[str, str]:
    digests = {}
    for model in sorted(folder.glob("*.onnx")):
        digests[f"the model {model.stem}"] = hashlib.sha256(model.read_bytes()).hexdigest()
        bank = load_state(model.with_suffix(".safetensors")).memory_bank
        digests[f"the bank {model.stem}"] = hashlib.sha256(bank.numpy().tobytes()).hexdigest()
    return digests


def _table_digest(parts: Sequence[Path]) -> str:
    """Over the rows of all parts: scores with all their bits, verdicts and boxes."""
    _, parquet = import_pyarrow()
    digest = hashlib.sha256()
    for part in parts:
        for row in parquet.read_table(part).to_pylist():
            digest.update(json.dumps(row, default=bytes.hex).encode())
    return digest.hexdigest()
