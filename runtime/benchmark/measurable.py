"""What a benchmark asks of an engine beyond judging frames."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from patchline.runtime.engine import Engine, Prediction
from patchline.runtime.engine.base import EngineFacts, PhaseTimes
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.preprocess import Frame

UNBOUNDED_MOST = 8
"""The largest batch that is measured where the engine has no limit, unless told."""


class Measurable(Engine, Protocol):
    """An engine that says how it runs."""

    @property
    def facts(self) -> EngineFacts:
        """How it runs."""


class Pending(Protocol):
    """A call in flight."""

    def result(self) -> Prediction:
        """Wait for it."""


class Submitting(Protocol):
    """An engine with several calls in flight."""

    def submit(self, frames: Frame) -> Pending:
        """Begin to judge frames."""


class SlotEngine(Measurable, Submitting, Protocol):
    """One whose phases can be told apart as well: a plan's."""

    def time_phases(self, frames: Frame) -> PhaseTimes:
        """Judge frames and say how long each part took."""


def as_slots(engine: Measurable) -> SlotEngine | None:
    """The engine as one with slots, where it has them."""
    return cast("SlotEngine", engine) if engine.facts.in_flight > 1 else None


def batch_sizes(facts: EngineFacts, most: int | None, path: Path) -> list[int]:
    """The batches that are measured: the smallest, then 1, 2, 4, … up to the largest.

    Args:
        facts: of the engine.
        most: the largest that is asked for; ``None`` for the engine's own, or 8 where that has no
            limit.
        path: of the engine, for the message.

    Raises:
        ConfigurationError: the engine does not take it.
    """
    largest = most or facts.most_batch or max(UNBOUNDED_MOST, facts.least_batch)
    check_batch(facts, largest, path)
    powers = [1 << bit for bit in range(largest.bit_length())]
    wanted = {facts.least_batch, largest, *powers}
    return sorted(batch for batch in wanted if facts.least_batch <= batch <= largest)


def check_batch(facts: EngineFacts, batch: int, path: Path) -> None:
    """Refuse a number of frames that an engine does not take in one call.

    Raises:
        ConfigurationError: it does not.
    """
    least, most = facts.least_batch, facts.most_batch
    if batch < least or (most is not None and batch > most):
        raise ConfigurationError(
            f"--batch is {batch}, and {path.name} takes {least} to {most} frames in one call. "
            f"Choose one of those, or build it for more: build-engine "
            f"{path.with_suffix('.onnx').name} --batch {min(least, batch)}:{batch}:"
            f"{max(batch, most or batch)}"
        )
