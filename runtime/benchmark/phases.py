"""The phases of a call: what of its time goes to the GPU, is computed there, and comes back."""

from __future__ import annotations

import dataclasses

from patchline.runtime.benchmark.frames import FramePool
from patchline.runtime.benchmark.measurable import SlotEngine
from patchline.runtime.benchmark.timing import Limits, collect
from patchline.runtime.clock import Clock
from patchline.runtime.engine.base import PhaseTimes

PHASES = tuple(field.name.removesuffix("_ms") for field in dataclasses.fields(PhaseTimes))
"""``h2d``, ``compute``, ``d2h``, ``enqueue``."""


def measure_phases(
    engine: SlotEngine, pool: FramePool, batch: int, limits: Limits, clock: Clock
) -> dict[str, list[float]]:
    """Time the phases of calls of their own: what it takes to mark them is in no end-to-end time.

    Returns:
        Milliseconds of each call, by phase.
    """
    feed = pool.feed(batch)
    run = collect(lambda: engine.time_phases(feed()), limits, clock)
    return {phase: [getattr(times, f"{phase}_ms") for times in run.samples] for phase in PHASES}
