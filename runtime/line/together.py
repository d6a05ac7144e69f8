"""Ends several things at once, so that each hanging one costs its own time and no other's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


def close_together(closers: Iterable[Callable[[], object]]) -> None:
    """Call all of them, each in a thread of its own, and wait: as long as the slowest one takes.

    Args:
        closers: bounded in time, and raise nothing.
    """
    threads = [threading.Thread(target=close, name="closing", daemon=True) for close in closers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
