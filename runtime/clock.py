"""The clock that everything timed is given, so that tests bring their own."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """What the camera loop needs to know about time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def now(self) -> datetime:
        """The wall-clock time, with its time zone."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set or ``seconds`` are over; whether it is set."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds of :func:`time.perf_counter`."""
        return time.perf_counter()

    def now(self) -> datetime:
        """Local time with its offset from UTC."""
        return datetime.now().astimezone()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``event``, at most ``seconds``."""
        return event.wait(max(seconds, 0.0))


SYSTEM_CLOCK: Clock = SystemClock()
"""The default of every ``clock`` argument."""
