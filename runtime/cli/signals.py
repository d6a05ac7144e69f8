"""What signals do to ``run-camera``: an end after the frame in hand, and another bank."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` at Ctrl-C and SIGTERM; a second one ends the process at once."""

    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def call_on_hangup(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` at SIGHUP, where the system has it."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
