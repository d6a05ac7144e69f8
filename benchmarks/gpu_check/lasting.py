"""Parts of the check: nothing leaks and nothing changes, however long it runs."""

from __future__ import annotations

import functools

import numpy as np

from patchline.benchmarks.gpu_check.bench import Bench, Found, PlanEngine, Results
from patchline.benchmarks.gpu_check.carried import EMBEDDED, EXTERNAL, Case
from patchline.benchmarks.gpu_check.figures import Growth, host_bytes, latency, milliseconds
from patchline.benchmarks.gpu_check.plans import compared
from patchline.runtime.errors import DataError
from patchline.runtime.preprocess import Frame

_GPU_GROWTH_BYTES, _HOST_GROWTH_BYTES = 2 << 20, 16 << 20
"""More than that after the first tenth of a run is a leak."""

_SAMPLES = 200


def banks(bench: Bench) -> Found:
    """Switch between two products: how long, that each gives its own scores, that nothing leaks."""
    cases, memory = (bench.carried.other, bench.carried.cases[EXTERNAL]), Memory(bench)
    times_ms, failures = [], []
    with bench.open(cases[1], True) as engine:
        for switch in range(bench.sizes.switches):
            times_ms.append(milliseconds(functools.partial(_load, engine, cases[switch % 2])))
            engine.infer(bench.carried.frames[:1])
            memory.look(switch)
        figures = {}
        for case in cases:
            found = _switched_in_flight(engine, case, bench.carried.frames)
            figures[case.name] = found.figures
            failures += [f"{case.name}: {failure}" for failure in found.failures]
    failures += memory.failures()
    return Found({"load_bank": latency(times_ms), **figures, **memory.figures()}, failures)


def _load(engine: PlanEngine, case: Case) -> None:
    if case.bank is None:
        raise DataError(f"the case {case.name} was carried without its bank: pack it again")
    engine.load_bank(case.bank)


def _switched_in_flight(engine: PlanEngine, case: Case, frames: Frame) -> Found:
    """A frame that was begun with the bank before keeps its scores; then those of ``case``."""
    before = engine.infer(frames[:1])
    begun = engine.submit(frames[:1])
    _load(engine, case)
    kept = np.array_equal(begun.result().image_score, before.image_score)
    found = compared(engine, case, frames, (1,))
    mixed = [] if kept else ["a frame in flight changed its score when the bank was switched"]
    return Found(found.figures, [*found.failures, *mixed])


def endurance(bench: Bench) -> Found:
    """Thousands of calls, watching memory, and the same outputs at the end."""
    case, count = bench.carried.cases[EMBEDDED], bench.sizes.inferences
    memory, every = Memory(bench), max(1, bench.sizes.inferences // _SAMPLES)
    with bench.open(case, True) as engine:
        for call in range(count):
            at = call % len(bench.carried.frames)
            engine.infer(bench.carried.frames[at : at + 1])
            if call % every == 0:
                memory.look(call)
        memory.look(count)
        after = compared(engine, case, bench.carried.frames, (1,))
    figures = {"inferences": count, "after": after.figures, **memory.figures()}
    return Found(figures, [*after.failures, *memory.failures()])


class Memory:
    """The GPU's and this process's memory over a run."""

    def __init__(self, bench: Bench) -> None:
        self._gpu = bench.gpu
        self._grown = {"gpu": Growth(), "host": Growth()}

    def look(self, step: int) -> None:
        """Keep one sample of both."""
        self._grown["gpu"].add(step, self._gpu.total_bytes - self._gpu.free_bytes)
        self._grown["host"].add(step, host_bytes())

    def figures(self) -> Results:
        """First, last, largest and slope of both."""
        return {f"{name}_memory": grown.summary() for name, grown in self._grown.items()}

    def failures(self) -> list[str]:
        """What grew."""
        limits = {"gpu": _GPU_GROWTH_BYTES, "host": _HOST_GROWTH_BYTES}
        grown = {n: g.summary()["settled_growth_bytes"] for n, g in self._grown.items()}
        return [
            f"{name} memory grew by {grown[name]} bytes after the first tenth, expected at most "
            f"{limit}"
            for name, limit in limits.items()
            if grown[name] > limit
        ]
