"""Two engines alternately: the order of calls, the pauses, the ratios."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.benchmark.compare import SPIN_S, Compared, compare, pair_ratios
from patchline.runtime.benchmark.frames import drawn_frames
from patchline.runtime.benchmark.subject import differences
from patchline.runtime.benchmark.timing import Limits
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine.base import Wait
from patchline.runtime.errors import ConfigurationError

from ..fakes import FakeClock
from ..tiny_model import make_manifest, make_trained_manifest
from .stand_ins import FACTS, TimedEngine

POOL = drawn_frames(ModelSize(height=32, width=32))
LIMITS = Limits(warm_up_ms=19.0, iterations=12, duration_s=0.09)


def run(
    clock: FakeClock, a: TimedEngine, b: TimedEngine, rounds: int = 4, batch: int = 2
) -> Compared:
    return compare((a, b), (POOL, POOL), batch, rounds, LIMITS, str, clock)


class TestOrder:
    def test_a_b_a_b_with_blocks_that_keep_the_limits_together(self) -> None:
        clock, log = FakeClock(), list[Any]()
        a = TimedEngine(clock, 3.0, 1.0, name="A", log=log)
        b = TimedEngine(clock, 8.0, 1.0, name="B", log=log)
        found = run(clock, a, b)
        blocks = [(name, len(list(calls))) for name, calls in itertools.groupby(e[0] for e in log)]
        # Two calls and 19 ms of warm-up; blocks of 90 / 4 ms or 12 / 4 calls after one untimed.
        assert blocks == [("A", 2 + 4), ("B", 2 + 2)] + [("A", 1 + 5), ("B", 1 + 3)] * 4
        assert {count for _, count, _ in log} == {2}
        assert found.batch == 2
        assert [len(block) for block in found.blocks_ms[0]] == [5] * 4
        assert found.samples_ms(0) == pytest.approx([5.0] * 20)
        assert found.medians_ms(1) == pytest.approx([10.0] * 4)
        assert found.ratios().pairs == pytest.approx([2.0] * 4)
        assert found.warnings() == []

    def test_the_first_call_of_a_block_does_not_count(self) -> None:
        clock, log = FakeClock(), list[Any]()

        class Sleepy(TimedEngine):
            """Slow whenever the other one was called before."""

            def milliseconds(self, frames: Any) -> float:
                before = log[-2][0] if len(log) > 1 else ""
                return super().milliseconds(frames) + 500 * (before != self.name)

        found = run(clock, Sleepy(clock, name="A", log=log), Sleepy(clock, name="B", log=log))
        for which in (0, 1):
            assert found.samples_ms(which) == pytest.approx([4.0] * len(found.samples_ms(which)))

    @pytest.mark.parametrize(
        ("first", "second", "waits"),
        [
            (Wait.SPIN, Wait.SPIN, 2 + 2 * 4),
            (Wait.SPIN, Wait.CUDA, 1 + 4),
            (Wait.NONE, Wait.CUDA, 0),
        ],
    )
    def test_spinning_threads_are_given_time_to_sleep(
        self, first: Wait, second: Wait, waits: int
    ) -> None:
        clock = FakeClock()
        a = TimedEngine(clock, facts=replace(FACTS, wait=first))
        b = TimedEngine(clock, facts=replace(FACTS, wait=second))
        run(clock, a, b)
        assert clock.waits_s == [SPIN_S] * waits

    def test_the_rounds_are_told(self) -> None:
        clock, said = FakeClock(), []
        engines = TimedEngine(clock), TimedEngine(clock)
        compare(engines, (POOL, POOL), 1, 3, LIMITS, said.append, clock)
        assert said == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]

    def test_refuses_a_single_round(self) -> None:
        clock = FakeClock()
        with pytest.raises(ConfigurationError, match="rounds is 1, expected 2 or more"):
            run(clock, TimedEngine(clock), TimedEngine(clock), rounds=1)

    def test_times_that_vary_are_named(self) -> None:
        found = Compared(1, ([[1.0, 2.0], [1.0]], [[1.0], [1.0]]))
        (warning,) = found.warnings()
        assert warning.startswith("A: the times vary by 35.4 %")


POSITIVE = st.floats(0.01, 100.0)


class TestRatios:
    @given(times=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=40))
    def test_against_numpy(self, times: list[tuple[float, float]]) -> None:
        first, second = (list(side) for side in zip(*times, strict=True))
        found = pair_ratios(first, second)
        pairs = np.array(second) / np.array(first)
        np.testing.assert_allclose(found.pairs, pairs)
        assert found.median == pytest.approx(statistics.median(pairs))
        quartiles = np.percentile(pairs, [25, 75], method="inverted_cdf")
        np.testing.assert_allclose((found.q1, found.q3), quartiles)
        side = np.sign(np.median(pairs) - 1)
        assert found.agreeing == int((np.sign(pairs - 1) == side).sum())

    @pytest.mark.parametrize(
        ("second", "median", "agreeing"),
        [
            ([2.0, 3.0, 0.5, 4.0], 2.5, 3),
            ([0.5, 0.25, 2.0], 0.5, 2),
            ([1.0, 1.0, 1.0], 1.0, 3),
            ([0.5, 1.5], 1.0, 0),
        ],
    )
    def test_how_many_pairs_agree(self, second: list[float], median: float, agreeing: int) -> None:
        found = pair_ratios([1.0] * len(second), second)
        assert (found.median, found.agreeing) == (median, agreeing)

    def test_pairs_are_never_mixed(self) -> None:
        """A drift that doubles everything in mid-run leaves every ratio alone."""
        found = pair_ratios([1.0, 2.0, 1.0, 2.0], [1.5, 3.0, 1.5, 3.0])
        assert found.pairs == [1.5] * 4 and (found.q1, found.q3) == (1.5, 1.5)

    def test_refuses_halves_of_pairs(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            pair_ratios([1.0, 2.0], [1.0])


class TestDifferences:
    def test_the_same_model_twice(self) -> None:
        assert differences(make_manifest(), make_manifest()) == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"model_size": {"height": 32, "width": 64}},
                "frames of different size: 32 x 32 px and 32 x 64 px",
            ),
            ({"class": "cap"}, "different classes: lamp and cap"),
            (
                {
                    "memory_bank": {
                        "rows": 2048,
                        "dimension": 1,
                        "neighbors": 1,
                        "coreset_ratio": 1.0,
                        "seed": 0,
                    }
                },
                "banks have different sizes: 1 and 2,048 rows",
            ),
        ],
    )
    def test_what_makes_times_unequal_is_said(self, changes: dict[str, Any], words: str) -> None:
        (found,) = differences(make_manifest(), make_manifest(**changes))
        assert words in found

    def test_a_bank_in_one_of_them_is_said(self) -> None:
        trained = make_trained_manifest()
        (found,) = differences(make_manifest(), trained)
        assert found.startswith("only one of the models has a memory bank: their methods are bri")
        assert differences(trained, trained) == []
