"""What every tracker is: something that is told how a training goes, and never stops it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Status = Literal["finished", "failed", "interrupted"]
"""How a training ended."""

Pictures = Mapping[str, npt.NDArray[np.uint8]]
"""uint8 ``[H, W, 3]`` RGB by caption."""


class Tracker(Protocol):
    """Takes a training's numbers, pictures and model; no call raises or waits for a server.

    Only :meth:`finish` waits, for a limited time. A tracker belongs to the thread that made it.

    ``step`` counts on two axes: one for pictures and all names below ``metrics/``, one for the
    others, each in a unit of the caller's choice, such as epochs and batches.
    """

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Take numbers by name: ``loss``, ``lr``, ``metrics/lamp/image_auroc``."""

    def images(self, name: str, pictures: Pictures, *, step: int) -> None:
        """Take pictures by caption, shown together under ``name``; they are copied."""

    def config(self, values: Mapping[str, Any]) -> None:
        """Take settings, nested or not; a later value replaces an earlier one of its name."""

    def model(self, path: Path, *, metadata: Mapping[str, Any]) -> None:
        """Take an exported model, with what is known of it, such as epoch and image AUROC."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take results of the whole training, such as its best metrics."""

    def finish(self, status: Status) -> None:
        """Write what still waits; from then on every method does nothing."""

    def __enter__(self) -> Tracker: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None: ...


def status_of(kind: type[BaseException] | None) -> Status:
    """The status of a training that an exception of this kind ended, or none."""
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


class NoTracker:
    """Does nothing, and asks for nothing."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Nothing."""

    def images(self, name: str, pictures: Pictures, *, step: int) -> None:
        """Nothing."""

    def config(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def model(self, path: Path, *, metadata: Mapping[str, Any]) -> None:
        """Nothing."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, status: Status) -> None:
        """Nothing."""

    def __enter__(self) -> NoTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        pass
