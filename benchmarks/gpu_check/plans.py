"""Parts of the check: plans are built, and compute what ONNX Runtime computed."""

from __future__ import annotations

import contextlib

from patchline.benchmarks.gpu_check.bench import WAYS, Bench, Found, PlanEngine, Results
from patchline.benchmarks.gpu_check.carried import Case
from patchline.benchmarks.gpu_check.compare import TOLERANCES, differences, problems, worst
from patchline.benchmarks.gpu_check.figures import milliseconds
from patchline.runtime.contract import external_data_path
from patchline.runtime.engine import Prediction
from patchline.runtime.preprocess import Frame


def build(bench: Bench) -> Found:
    """Build every plan, and open it again: seconds, bytes, the first call."""
    figures: Results = {}
    for name, case in bench.carried.cases.items():
        free = bench.gpu.free_bytes
        row = {"build_and_open_ms": _opened(bench, case)["open_ms"]} | _opened(bench, case)
        plan = case.model.with_suffix(".trt")
        data = external_data_path(case.model)
        figures[name] = row | {
            "plan_bytes": plan.stat().st_size,
            "onnx_bytes": case.model.stat().st_size + (data.stat().st_size if data.exists() else 0),
            "gpu_bytes_left_behind": free - bench.gpu.free_bytes,
        }
    return Found(figures, [])


def _opened(bench: Bench, case: Case) -> Results:
    with contextlib.ExitStack() as stack:
        engines: list[PlanEngine] = []
        before = bench.gpu.free_bytes
        opened_ms = milliseconds(
            lambda: engines.append(stack.enter_context(bench.open(case, True)))
        )
        first_ms = milliseconds(lambda: engines[0].infer(bench.carried.frames[:1]))
        return {
            "open_ms": round(opened_ms, 1),
            "first_call_ms": round(first_ms, 1),
            "gpu_bytes": before - bench.gpu.free_bytes,
            "engine": engines[0].description,
        }


def compare(bench: Bench) -> Found:
    """Every model, every batch, with CUDA graphs and without, against ONNX Runtime's outputs."""
    figures, failures = {}, []
    for name, case in bench.carried.cases.items():
        for way, graphs in WAYS.items():
            with bench.open(case, graphs) as engine:
                found = compared(engine, case, bench.carried.frames, bench.batches)
            figures[f"{name}, {way}"] = found.figures
            failures += [f"{name}, {way}: {failure}" for failure in found.failures]
    return Found(figures, failures)


def compared(engine: PlanEngine, case: Case, frames: Frame, batches: tuple[int, ...]) -> Found:
    """The carried frames, so many in one call; twice, as a CUDA graph is captured the first time.

    Returns:
        The largest differences over all batches, and what of them is out of tolerance.
    """
    tolerances = TOLERANCES[engine.manifest.precision]
    results = []
    for batch in batches:
        for start in [*range(0, len(frames) - batch + 1, batch)] * 2:
            part = slice(start, start + batch)
            expected, allowed = _part(case.expected, part), _part(case.allowed, part)
            found = engine.infer(frames[part])
            results.append(differences(expected, found, allowed, engine.manifest.threshold))
    return Found(worst(results), problems(worst(results), tolerances))


def _part(whole: Prediction, part: slice) -> Prediction:
    return Prediction(*(values[part] for values in vars(whole).values()))
