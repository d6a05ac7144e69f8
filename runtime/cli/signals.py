"""What signals do to ``run-camera``: an end after the frames in hand, other banks and rules."""

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


class Hangup:
    """Remembers SIGHUP until the line looks for it, between two frames."""

    def __init__(self) -> None:
        self._is_asked = False
        self._actions: list[Callable[[], None]] = []

    def request(self) -> None:
        """Ask for it; a signal handler may, so that this takes no lock."""
        self._is_asked = True

    def then(self, action: Callable[[], None]) -> None:
        """Do this too, when it was asked for."""
        self._actions.append(action)

    def apply(self) -> None:
        """Do it all if it was asked for since the last call."""
        if not self._is_asked:
            return
        self._is_asked = False  # before anything is read: who asks now has written it after that
        for action in self._actions:
            action()
