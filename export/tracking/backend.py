"""What stands behind a tracker's thread: it may raise and block, its calls come from one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from patchline.export.tracking.base import Pictures, Status

Tell = Callable[[str], object]
"""Given one sentence for people, from any thread."""


class Backend(Protocol):
    """The methods of :class:`~patchline.export.tracking.base.Tracker`, with plain values."""

    rescue: str
    """A sentence on what to do with what was not sent; empty where there is nothing to do."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Write numbers."""

    def images(self, name: str, pictures: Pictures, step: int) -> None:
        """Write pictures."""

    def config(self, values: dict[str, Any]) -> None:
        """Write settings."""

    def model(self, path: Path, metadata: dict[str, Any]) -> None:
        """Write a model."""

    def summary(self, values: dict[str, Any]) -> None:
        """Write results."""

    def finish(self, status: Status) -> None:
        """Write everything, and let go."""


@dataclass(frozen=True)
class Opening:
    """How a backend is opened.

    Attributes:
        name: what it is, for messages.
        open: makes it; called from the thread.
        seconds_per_mib: by how much the end waits longer for each MiB of a model.
        exit_s: how long its library may hold up the end of the process where it hangs; this part
            of the finish timeout is not waited for before.
        abandon: called where its thread is left behind; sees to ``exit_s``.
    """

    name: str
    open: Callable[[], Backend]
    seconds_per_mib: float = 0.0
    exit_s: float = 0.0
    abandon: Callable[[], None] = lambda: None
