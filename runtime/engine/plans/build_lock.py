"""Two processes that want the same plan: one builds, the other waits and takes the result."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from patchline.runtime.files import write_errors


@contextlib.contextmanager
def build_lock(plan: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a plan while the context is open.

    The lock is the system's (``flock``), so that it goes with the process that held it, however
    that ended. The empty file ``.bottle.trt.lock`` stays: removing it would let two in.

    Args:
        plan: the plan that is to be built.
        on_wait: told once if another process is building it.

    Raises:
        WriteError: the folder cannot be written.
    """
    path = plan.with_name(f".{plan.name}.lock")
    with write_errors(plan.parent):
        plan.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
