"""Parts of the check: how long a call takes, and how many frames pass in a second."""

from __future__ import annotations

import contextlib
import functools

from patchline.benchmarks.gpu_check.bench import WAYS, Bench, Found, PlanEngine, Results
from patchline.benchmarks.gpu_check.carried import BACKBONE, EMBEDDED, EXTERNAL
from patchline.benchmarks.gpu_check.figures import latency, medians_of, paired_median
from patchline.benchmarks.report import alternate
from patchline.runtime.benchmark.throughput import Overlapped
from patchline.runtime.preprocess import Frame

_WARM_UP = 10
_CALLS_AT_A_TIME = 50
_BATCHES = (1, 4, 8)
"""Of the throughput."""


def latencies(bench: Bench) -> Found:
    """Every model in turn, with CUDA graphs and without, batch by batch: the whole call."""
    figures: Results = {}
    with contextlib.ExitStack() as stack:
        engines = {
            (name, way): stack.enter_context(bench.open(case, graphs))
            for name, case in bench.carried.cases.items()
            for way, graphs in WAYS.items()
        }
        for batch in bench.batches:
            frames = bench.carried.frames[:batch]
            calls = {
                f"{name}, {way}": functools.partial(engine.infer, frames)
                for (name, way), engine in engines.items()
            }
            times = alternate(calls, rounds=bench.sizes.rounds, warmup=_WARM_UP)
            figures[f"batch {batch}"] = {n: latency(t) for n, t in times.items()} | {
                "ratios": _ratios(times)
            }
    return Found(figures, [])


def _ratios(times_ms: dict[str, list[float]]) -> dict[str, float]:
    """Of pairs of the same round: what the bank beside costs, the head, and a graph saves."""
    found = {}
    for way in WAYS:
        whole = times_ms[f"{EMBEDDED}, {way}"]
        beside, alone = times_ms[f"{EXTERNAL}, {way}"], times_ms[f"{BACKBONE}, {way}"]
        found[f"external over embedded, {way}"] = paired_median(beside, whole, lambda a, b: a / b)
        found[f"head over backbone, {way}"] = paired_median(whole, alone, lambda a, b: a / b - 1)
    graph, stream = (times_ms[f"{EMBEDDED}, {way}"] for way in WAYS)
    found["stream over cuda_graph"] = paired_median(stream, graph, lambda a, b: a / b)
    return found


def throughput(bench: Bench) -> Found:
    """Frames per second with one call in flight and with two."""
    figures: Results = {}
    case, rounds = bench.carried.cases[EMBEDDED], max(2, bench.sizes.rounds // 10)
    with bench.open(case, True) as engine:
        for batch in (b for b in _BATCHES if b in bench.batches):
            frames = bench.carried.frames[:batch]
            calls = {
                "one in flight": functools.partial(_one_in_flight, engine, frames),
                "two in flight": functools.partial(_two_in_flight, engine, frames),
            }
            times = alternate(calls, rounds=rounds, warmup=1)
            count = batch * _CALLS_AT_A_TIME
            rates = {n: round(1e3 * count / ms, 1) for n, ms in medians_of(times).items()}
            figures[f"batch {batch}"] = {"frames_per_s": rates} | {
                "two over one": paired_median(
                    times["one in flight"], times["two in flight"], lambda a, b: a / b
                )
            }
    return Found(figures, [])


def _one_in_flight(engine: PlanEngine, frames: Frame) -> None:
    for _ in range(_CALLS_AT_A_TIME):
        engine.infer(frames)


def _two_in_flight(engine: PlanEngine, frames: Frame) -> None:
    calls = Overlapped(engine, 2)
    for _ in range(_CALLS_AT_A_TIME):
        calls.step(frames)
    calls.finish()
