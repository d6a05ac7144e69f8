"""One engine: which batches, how long, what comes out; by a clock of the tests' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.benchmark.frames import drawn_frames
from patchline.runtime.benchmark.measurable import as_slots, batch_sizes
from patchline.runtime.benchmark.measure import Measured, measure
from patchline.runtime.benchmark.phases import PHASES, measure_phases
from patchline.runtime.benchmark.throughput import BatchRun, Overlapped, one_in_flight, overlapped
from patchline.runtime.benchmark.timing import Limits
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError, EngineError

from ..fakes import FakeClock
from .stand_ins import FACTS, PLAN_FACTS, SlotPlan, TimedEngine, blank

POOL = drawn_frames(ModelSize(height=32, width=32))
LIMITS = Limits(warm_up_ms=50.0, iterations=10, duration_s=0.2985)
PLAN = Path("lamp.trt")


class TestBatches:
    @pytest.mark.parametrize(
        ("least", "limit", "asked", "expected"),
        [
            (1, None, None, [1, 2, 4, 8]),
            (1, None, 1, [1]),
            (1, None, 6, [1, 2, 4, 6]),
            (1, None, 32, [1, 2, 4, 8, 16, 32]),
            (1, 4, None, [1, 2, 4]),
            (1, 1, None, [1]),
            (3, 12, None, [3, 4, 8, 12]),
            (3, 12, 5, [3, 4, 5]),
            (16, 16, None, [16]),
            (16, None, None, [16]),
        ],
    )
    def test_powers_of_two_between_the_ends(
        self, least: int, limit: int | None, asked: int | None, expected: list[int]
    ) -> None:
        facts = replace(FACTS, least_batch=least, most_batch=limit)
        assert batch_sizes(facts, asked, PLAN) == expected

    @pytest.mark.parametrize(("asked", "profile"), [(5, "1:5:5"), (100, "1:100:100")])
    def test_refuses_more_than_the_plan_takes(self, asked: int, profile: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            batch_sizes(PLAN_FACTS, asked, PLAN)
        assert f"--batch is {asked}, and lamp.trt takes 1 to 4 frames" in str(caught.value)
        assert f"build-engine lamp.onnx --batch {profile}" in str(caught.value)

    def test_refuses_fewer_than_the_plan_takes(self) -> None:
        with pytest.raises(ConfigurationError, match=r"takes 3 to 4 .* --batch 2:2:4"):
            batch_sizes(replace(PLAN_FACTS, least_batch=3), 2, PLAN)


class TestThroughput:
    def test_one_after_the_other(self) -> None:
        clock = FakeClock()
        run = one_in_flight(TimedEngine(clock), POOL, 4, LIMITS, clock)
        assert (run.batch, run.in_flight) == (4, 1)
        assert run.samples_ms == pytest.approx([6.0] * 50)
        assert run.frames_per_s == pytest.approx(4 / 0.006)

    @pytest.mark.parametrize(("make", "calls"), [(TimedEngine, 2), (SlotPlan, 4)])
    def test_each_slot_is_ready_however_short_the_warm_up(self, make: Any, calls: int) -> None:
        clock, log = FakeClock(), list[Any]()
        limits = Limits(warm_up_ms=0.0, iterations=1, duration_s=1e-9)
        run = one_in_flight(make(clock, log=log), POOL, 3, limits, clock)
        assert len(run.samples_ms) == 1 and [count for _, count, _ in log] == [3] * (calls + 1)

    def test_overlapping_calls_are_counted_once_each(self) -> None:
        clock = FakeClock()
        engine = SlotPlan(clock)
        run = overlapped(engine, POOL, 4, LIMITS, clock)
        assert (run.batch, run.in_flight) == (4, 2)
        assert run.samples_ms == pytest.approx([4.0] * 75)
        assert run.frames_per_s == pytest.approx(1000)
        assert engine.most_in_flight == 2 and not engine.pending

    def test_without_a_warm_up_the_first_step_ends_a_call_too(self) -> None:
        clock = FakeClock()
        limits = Limits(warm_up_ms=0.0, iterations=3, duration_s=1e-9)
        assert overlapped(SlotPlan(clock), POOL, 4, limits, clock).samples_ms == pytest.approx(
            [4.0] * 3
        )

    def test_every_call_is_waited_for(self) -> None:
        engine = SlotPlan(FakeClock())
        calls = Overlapped(engine, 2)
        for _ in range(5):
            calls.step(blank())
        assert len(engine.pending) == 1
        calls.finish()
        assert not engine.pending

    def test_frames_per_second(self) -> None:
        assert BatchRun(8, 1, [1.0] * 30, 2.0).frames_per_s == 120.0


class TestMeasure:
    def test_without_slots_there_are_no_phases(self) -> None:
        clock, said = FakeClock(), []
        engine = TimedEngine(clock)
        assert as_slots(engine) is None
        found = measure(engine, POOL, [1, 2, 4], LIMITS, said.append, clock)
        assert [(run.batch, run.in_flight) for run in found.runs] == [(1, 1), (2, 1), (4, 1)]
        assert found.phases is None and found.latency is found.runs[0]
        assert found.latency.samples_ms == pytest.approx([3.0] * 100)
        assert said == [f"batch {n}: one call after the other" for n in (1, 2, 4)]

    def test_with_slots_each_batch_also_overlaps_and_the_smallest_has_phases(self) -> None:
        clock, said = FakeClock(), []
        found = measure(SlotPlan(clock), POOL, [2, 4], LIMITS, said.append, clock)
        assert [(r.batch, r.in_flight) for r in found.runs] == [(2, 1), (2, 2), (4, 1), (4, 2)]
        assert found.phases is not None and tuple(found.phases) == PHASES
        assert {name: set(times) for name, times in found.phases.items()} == {
            "h2d": {0.5},
            "compute": {4.0},
            "d2h": {1.0},
            "enqueue": {0.125},
        }
        assert said == [
            "batch 2: one call after the other",
            "batch 2: 2 calls in flight",
            "batch 2: phases",
            "batch 4: one call after the other",
            "batch 4: 2 calls in flight",
        ]

    def test_phases_keep_the_limits(self) -> None:
        clock = FakeClock()
        found = measure_phases(SlotPlan(clock), POOL, 1, LIMITS, clock)
        assert PHASES == ("h2d", "compute", "d2h", "enqueue")
        assert {len(times) for times in found.values()} == {100}

    def test_an_engine_that_fails_ends_it(self) -> None:
        clock = FakeClock()
        engine = TimedEngine(clock)
        engine.close()
        with pytest.raises(EngineError, match="is closed"):
            measure(engine, POOL, [1], LIMITS, str, clock)


class TestWarnings:
    def run(self, *samples_ms: float, batch: int = 1, in_flight: int = 1) -> BatchRun:
        return BatchRun(batch, in_flight, list(samples_ms), 1.0)

    def test_steady_times_have_none(self) -> None:
        steady = [10.0, 10.1, 9.9]
        found = Measured([self.run(*steady)], dict.fromkeys(PHASES, steady))
        assert found.warnings() == []

    def test_times_that_vary_are_named(self) -> None:
        runs = [self.run(10.0, 10.0), self.run(10.0, 30.0, batch=2)]
        runs.append(self.run(10.0, 90.0, batch=2, in_flight=2))
        phases = {"h2d": [1.0, 9.0], "compute": [1.0, 3.0], "d2h": [1.0], "enqueue": [1.0, 9.0]}
        batch, compute = Measured(runs, phases).warnings()
        assert batch.startswith("batch 2: the times vary by 50.0 % (coefficient of variation; ")
        assert "up to 2.5 % is steady" in batch
        assert compute.startswith("compute: the times vary by 50.0 %")
