"""Waits between attempts: bounds, growth, jitter, and the limits that are refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.camera.backoff import BackOff, ReconnectLimits
from patchline.runtime.errors import ConfigurationError


class FixedRandom(random.Random):
    """Gives the same number always."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value


def test_the_waits_double_from_half_a_second_to_thirty() -> None:
    longest = BackOff(ReconnectLimits(), FixedRandom(1.0))
    assert [longest.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    shortest = BackOff(ReconnectLimits(), FixedRandom(0.0))
    assert [shortest.next_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


@given(
    first=st.floats(0.001, 100),
    factor=st.floats(1, 1000),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
)
def test_each_wait_lies_between_half_its_cap_and_the_cap(
    first: float, factor: float, seed: int, count: int
) -> None:
    limits = ReconnectLimits(first_delay_s=first, most_delay_s=first * factor)
    back_off = BackOff(limits, random.Random(seed))
    for number in range(count):
        cap = min(first * 2.0**number, first * factor)
        assert 0.5 * cap * (1 - 1e-12) <= back_off.next_s() <= cap * (1 + 1e-12)
        assert back_off.failures == number + 1


@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
def test_the_caps_never_shrink_and_a_reset_starts_again(seed: int, count: int) -> None:
    caps = BackOff(ReconnectLimits(), FixedRandom(1.0))
    grown = [caps.next_s() for _ in range(count)]
    assert grown == sorted(grown)
    assert max(grown) <= 30
    random_one = BackOff(ReconnectLimits(), random.Random(seed))
    for _ in range(count):
        random_one.next_s()
    random_one.reset()
    assert random_one.failures == 0
    assert 0.25 <= random_one.next_s() <= 0.5


def test_years_of_failures_do_not_overflow() -> None:
    back_off = BackOff(ReconnectLimits(), random.Random(1))
    assert all(0 < back_off.next_s() <= 30 for _ in range(100_000))


def test_two_cameras_do_not_come_back_in_step() -> None:
    waits = {BackOff(ReconnectLimits(), random.Random(seed)).next_s() for seed in range(100)}
    assert len(waits) > 90
    assert max(waits) - min(waits) > 0.2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"attempts": -1}, "attempts is -1, expected 0 or more"),
        ({"most_wedged": -2}, "most_wedged is -2"),
        ({"stall_s": 0}, "stall_s is 0, expected seconds above 0"),
        ({"lost_s": float("nan")}, "lost_s is nan"),
        ({"open_s": float("inf")}, "open_s is inf"),
        ({"stable_s": -1.0}, "stable_s is -1.0"),
        ({"stall_s": 20}, "stall_s is 20 and lost_s 15, expected stall_s <= lost_s"),
        ({"first_delay_s": 40}, "first_delay_s is 40 and most_delay_s 30"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ReconnectLimits(**wrong)
