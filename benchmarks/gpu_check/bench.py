"""What the parts of the check are given, and what they give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from patchline.benchmarks.gpu_check.carried import Carried, Case
from patchline.runtime.benchmark.measurable import Submitting
from patchline.runtime.engine import Engine

Results = dict[str, Any]

WAYS = {"cuda_graph": True, "stream": False}
"""A call is replayed as a CUDA graph, or queued anew."""


class PlanEngine(Engine, Submitting, Protocol):
    """An engine with slots: what :mod:`patchline.runtime.engine.tensorrt` has beyond the others."""


class Device(Protocol):
    """The GPU, as far as its memory is watched."""

    @property
    def total_bytes(self) -> int:
        """Memory there is."""

    @property
    def free_bytes(self) -> int:
        """Memory that is free now."""


@dataclass(frozen=True)
class Sizes:
    """How long the parts last.

    Attributes:
        inferences: of the endurance run.
        rounds: timed calls of each kind.
        batches: numbers of frames in one call.
        switches: of the bank.
    """

    inferences: int = 10_000
    rounds: int = 200
    batches: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    switches: int = 100


@dataclass(frozen=True)
class Bench:
    """What every part is given.

    Attributes:
        carried: models, frames and what they gave before.
        gpu: the device.
        open: opens a case, with CUDA graphs or without.
        sizes: how long the parts last.
    """

    carried: Carried
    gpu: Device
    open: Callable[[Case, bool], contextlib.AbstractContextManager[PlanEngine]]
    sizes: Sizes

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of frames in one call, as far as frames were carried."""
        return tuple(b for b in self.sizes.batches if b <= len(self.carried.frames))


@dataclass(frozen=True)
class Found:
    """What a part gives: its figures, and sentences where they are not as they must be."""

    figures: Results
    failures: list[str]


Part = Callable[[Bench], Found]
