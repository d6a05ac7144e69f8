"""The loop that everything is timed by: a warm-up, then at least so many calls and so long."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from patchline.runtime.clock import Clock
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.interrupt import raise_if_interrupted

_Sample = TypeVar("_Sample")


@dataclass(frozen=True)
class Limits:
    """How long is measured; the defaults are trtexec's.

    Attributes:
        warm_up_ms: before the first time that counts; 0 for none.
        iterations: at least so many calls count.
        duration_s: for at least so long.

    Raises:
        ConfigurationError: a value that cannot be.
    """

    warm_up_ms: float = 200.0
    iterations: int = 10
    duration_s: float = 3.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("the warm-up in milliseconds", self.warm_up_ms, "0 or more"),
            ("the duration in seconds", self.duration_s, "more than 0"),
        ):
            is_enough = value >= 0 if least == "0 or more" else value > 0
            if not (math.isfinite(value) and is_enough):
                raise ConfigurationError(f"{name} is {value}, expected {least}")
        if self.iterations < 1:
            raise ConfigurationError(
                f"the number of iterations is {self.iterations}, expected 1 or more"
            )


@dataclass(frozen=True)
class Run(Generic[_Sample]):
    """What a loop of calls gave.

    Attributes:
        samples: of each call that counts.
        elapsed_s: from before the first of them to after the last.
    """

    samples: list[_Sample]
    elapsed_s: float


def warm_up(call: Callable[[], object], milliseconds: float, clock: Clock) -> None:
    """Call until that long is over; not at all for 0."""
    started = clock.monotonic()
    while 1e3 * (clock.monotonic() - started) < milliseconds:
        raise_if_interrupted()
        call()


def collect(call: Callable[[], _Sample], limits: Limits, clock: Clock) -> Run[_Sample]:
    """Warm up, then call until there are enough calls and it lasted long enough.

    Args:
        call: gives what is kept of it; it ends when its work is done, on a GPU too.
        limits: how long.
        clock: of both.
    """
    warm_up(call, limits.warm_up_ms, clock)
    return repeat(call, limits.iterations, limits.duration_s, clock)


def repeat(
    call: Callable[[], _Sample], iterations: int, duration_s: float, clock: Clock
) -> Run[_Sample]:
    """As :func:`collect`, without a warm-up."""
    samples: list[_Sample] = []
    started = clock.monotonic()
    for count in itertools.count(1):
        raise_if_interrupted()  # an interrupt that a library dropped
        samples.append(call())
        elapsed_s = clock.monotonic() - started
        if count >= iterations and elapsed_s >= duration_s:
            break
    return Run(samples, elapsed_s)


def timed(call: Callable[[], object], clock: Clock) -> Callable[[], float]:
    """The call as one that gives its own milliseconds."""

    def milliseconds() -> float:
        started = clock.monotonic()
        call()
        return 1e3 * (clock.monotonic() - started)

    return milliseconds
