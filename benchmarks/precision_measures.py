"""Figures of one class in every precision for :mod:`patchline.benchmarks.precision`."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from patchline.benchmarks.outcome import outcome, warn_of
from patchline.benchmarks.precision_models import FLOAT32, Models
from patchline.benchmarks.report import alternate, summarize
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.runtime.contract import FRAMES, OUTPUTS, Precision, Threshold
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.build import Target, build_plan
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.plans.record import BuildOptions
from patchline.runtime.engine.session_options import session_options
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.progress import Steps

Figures = dict[Precision, dict[str, Any]]
"""By precision: figures by name."""


def measure(models: Models, data: Path, flavour: Flavour | None, steps: Steps) -> Figures:
    """Everything but times.

    Args:
        models: the exported files.
        data: folder of class folders with the test set.
        flavour: builds the plans; ``None`` for no plans.
        steps: shows progress.

    Raises:
        PatchlineError: a file cannot be run, a picture cannot be read or a plan cannot be built.
    """
    whole_bytes = models.paths[FLOAT32].stat().st_size
    measured: Figures = {}
    for precision, path in models.paths.items():
        file_bytes = path.stat().st_size
        measured[precision] = {
            **_evaluate(path, data, precision),
            **_conversion(models, precision),
            "file_bytes": file_bytes,
            "file_over_fp32": round(file_bytes / whole_bytes, 4),
            "plan_bytes": None if flavour is None else _plan_bytes(path, flavour, steps),
        }
    return measured


def _evaluate(path: Path, data: Path, precision: Precision) -> dict[str, Any]:
    with open_engine(path, provider="cpu") as engine:
        evaluation = evaluate_class(engine, data)
    manifest = evaluation.manifest
    warn_of(evaluation, f"{manifest.class_name} in {precision}")
    return {
        **outcome(evaluation),
        "threshold": threshold_values(manifest.threshold),
        "bank_precision": manifest.required_bank().precision,
    }


def threshold_values(threshold: Threshold) -> dict[str, float]:
    """Of the image score and of the map."""
    return {"value": round(threshold.value, 5), "map_value": round(threshold.map_value, 5)}


def _conversion(models: Models, precision: Precision) -> dict[str, Any]:
    """What the gate found, how INT8 was calibrated, and what else was said; none of float32."""
    converted = models.converted.get(precision)
    conversion = converted.manifest.conversion if converted else None
    if converted is None or conversion is None:
        return {"gate": None, "quantization": None, "notes": []}
    how = conversion.quantization
    return {
        "gate": _rounded(conversion.gate.model_dump(mode="json")),
        "quantization": _rounded(how.model_dump(mode="json")) if how else None,
        "notes": list(converted.notes),
    }


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    """Those that there are."""
    return {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }


def _plan_bytes(path: Path, flavour: Flavour, steps: Steps) -> int:
    plan = path.with_suffix(".trt")
    build_plan(path, plan, Target(flavour, None, BuildOptions()), steps)
    return plan.stat().st_size


def add_times(measured: Figures, models: Models, rounds: int, threads: int) -> None:
    """Time all files in turn on one good picture, and add that to their figures."""
    size = models.fitted.detector.embedder.size
    frame = preprocess(read_image(models.fitted.pictures.paths[0]), size)[None]
    runs = {str(name): _runner(path, frame, threads) for name, path in models.paths.items()}
    times_ms = alternate(runs, rounds=rounds, warmup=max(2, rounds // 10))
    for name, figures in measured.items():
        pairs = zip(times_ms[name], times_ms[FLOAT32], strict=True)
        figures["latency"] = summarize(times_ms[name])
        figures["latency_over_fp32"] = round(statistics.median(a / b for a, b in pairs), 4)


def _runner(path: Path, frame: Frame, threads: int) -> Callable[[], object]:
    options = session_options(onnxruntime)
    options.intra_op_num_threads = threads
    # Threads that spin after a run would slow the other file, which is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, list(OUTPUTS), {FRAMES: frame})
