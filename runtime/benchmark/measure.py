"""One engine: latency, phases and throughput, and the state of the machine around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchline.runtime.benchmark.frames import FramePool
from patchline.runtime.benchmark.measurable import Measurable, as_slots
from patchline.runtime.benchmark.phases import measure_phases
from patchline.runtime.benchmark.stats import UNSTEADY_PERCENT, Summary, summarize
from patchline.runtime.benchmark.throughput import BatchRun, one_in_flight, overlapped
from patchline.runtime.benchmark.timing import Limits
from patchline.runtime.clock import SYSTEM_CLOCK, Clock

Say = Callable[[str], object]
"""Told in a sentence what is measured now."""


@dataclass(frozen=True)
class Measured:
    """What was found of one engine.

    Attributes:
        runs: one for each batch with one call in flight, the smallest first; where the engine has
            slots, one with all of them in use as well.
        phases: milliseconds of each call of the smallest batch, by phase; ``None`` where the
            engine's phases cannot be told apart.
    """

    runs: list[BatchRun]
    phases: dict[str, list[float]] | None

    @property
    def latency(self) -> BatchRun:
        """The smallest batch, one call after the other."""
        return self.runs[0]

    def warnings(self) -> list[str]:
        """What makes the times less sure, as sentences."""
        named = [(_name(run), run.samples_ms) for run in self.runs if run.in_flight == 1]
        if self.phases is not None:
            named.append(("compute", self.phases["compute"]))
        return unsteady([(name, summarize(samples)) for name, samples in named])


def measure(
    engine: Measurable,
    pool: FramePool,
    batches: Sequence[int],
    limits: Limits,
    say: Say,
    clock: Clock = SYSTEM_CLOCK,
) -> Measured:
    """Measure one engine.

    Args:
        engine: open.
        pool: the frames.
        batches: ascending; the phases are the smallest one's.
        limits: of each loop.
        say: told of each loop before it begins; nothing is printed while one runs.
        clock: of everything but what the GPU times.

    Raises:
        EngineError: the engine failed.
    """
    slots, runs, phases = as_slots(engine), [], None
    for batch in batches:
        say(f"batch {batch}: one call after the other")
        runs.append(one_in_flight(engine, pool, batch, limits, clock))
        if slots is None:
            continue
        say(f"batch {batch}: {engine.facts.in_flight} calls in flight")
        runs.append(overlapped(slots, pool, batch, limits, clock))
        if phases is None:
            say(f"batch {batch}: phases")
            phases = measure_phases(slots, pool, batch, limits, clock)
    return Measured(runs, phases)


def unsteady(summaries: Sequence[tuple[str, Summary]]) -> list[str]:
    """A sentence for each of these that varies by more than 2.5 %."""
    return [
        f"{name}: the times vary by {summary.cv_percent:.1f} % (coefficient of variation; up to "
        f"{UNSTEADY_PERCENT} % is steady). Close what else runs, fix the clocks, measure longer"
        for name, summary in summaries
        if not summary.is_steady
    ]


def _name(run: BatchRun) -> str:
    return f"batch {run.batch}"
