"""The states of a camera, and what is told when one changes."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


class StreamState(str, enum.Enum):
    """Where a camera is between its first opening and its end."""

    CONNECTING = "connecting"
    """It is being opened for the first time."""

    RUNNING = "running"
    """Frames come."""

    STALLED = "stalled"
    """It is open, and no frame has come for a while."""

    RECONNECTING = "reconnecting"
    """It was lost, and is being opened again or waits for the next attempt."""

    ENDED = "ended"
    """Its material is used up, or it was told to stop."""

    FAILED = "failed"
    """It will give no more frames, and that was not meant to be."""


@dataclass(frozen=True)
class StateChange:
    """A camera went into another state.

    Attributes:
        camera: name of the camera.
        state: the new state.
        time: wall-clock time of the change, with its time zone.
        detail: why, as a sentence without credentials; may be empty.
    """

    camera: str
    state: StreamState
    time: datetime
    detail: str = ""


OnState = Callable[[StateChange], None]
"""Told of each change, from whichever thread saw it; must not block."""
