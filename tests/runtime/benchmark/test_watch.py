"""The machine before and after a measurement."""

from __future__ import annotations

from dataclasses import replace

from patchline.runtime.benchmark.machine import describe_machine
from patchline.runtime.benchmark.timing import Limits
from patchline.runtime.benchmark.watch import Watch

from ..fakes import NOON, FakeClock
from .test_device_state import STILL, clock


def test_it_looks_before_and_after_and_adds_its_warnings() -> None:
    states = [replace(STILL, cpus=[clock(hz)]) for hz in (1_000_000_000, 2_000_000_000)]
    given = iter(states)
    watch = Watch(Limits(iterations=7), lambda: next(given), FakeClock())
    about = watch.end(["batch 1: the times vary"])
    assert [about.before, about.after] == states
    assert about.date == NOON and about.limits.iterations == 7
    assert about.machine == describe_machine()
    assert about.warnings == [
        "batch 1: the times vary",
        "the clock of the CPU was 1,000 MHz before the run and 2,000 MHz after it",
    ]
