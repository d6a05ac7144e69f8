"""Ctrl-C that no library can swallow.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a finaliser, a callback
of a native library or behind a bare ``except:`` it is dropped, and an hour's work would go on. So
the first one is remembered, and long jobs look for it at each step they show.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_interrupted = threading.Event()


@contextlib.contextmanager
def remembered_interrupts() -> Iterator[None]:
    """Remember a SIGINT while the context is open; it raises KeyboardInterrupt as always.

    Where SIGINT is ignored (a background job of a shell), it stays so.
    """
    _interrupted.clear()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield
        return
    report = sys.unraisablehook
    signal.signal(signal.SIGINT, _remember)
    sys.unraisablehook = lambda dropped: _report_others(dropped, report)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = report
        _interrupted.clear()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt again where an earlier one was dropped."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _report_others(dropped: Any, report: Callable[[Any], object]) -> None:
    # A dropped interrupt is raised again at the next step: no traceback about it in between.
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        report(dropped)
