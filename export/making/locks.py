"""One fit of a class at a time in a folder of models, and one writer of a shared graph (issue 9).

The locks are the system's (``flock``): they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.export.config import FitSettings
from patchline.export.external_files import graph_path
from patchline.runtime.contract import manifest_path
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import clear_stages, write_errors

if TYPE_CHECKING:
    from filelock import BaseFileLock

PREFIX = ".patchline-lock-"

_POLL_S = 0.5


@contextlib.contextmanager
def class_lock(out: Path, class_name: str) -> Iterator[None]:
    """Hold a class of a folder while the context is open; what a killed fit left there is removed.

    Raises:
        ConfigurationError: another process holds it; the sentence says which.
        WriteError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(_file(out, class_name, "lock")), _file(out, class_name, "json")
    with write_errors(out):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:  # an OSError, too
            raise ConfigurationError(
                f"{class_name} is being made in {out} by another process{_shown(holder)}. Wait for "
                "it, end it, or give another --out"
            ) from error
    try:
        with write_errors(out):
            holder.write_text(_myself(), encoding="utf-8")
            clear_stages(out, class_name)
        yield
    finally:
        clear_stages(out, class_name)
        holder.unlink(missing_ok=True)
        _release(lock)


@contextlib.contextmanager
def graph_lock(out: Path, settings: FitSettings) -> Iterator[None]:
    """Hold the graph that a class shares while the context is open, unless it is there already.

    Whoever finds it held waits: it is written in the last seconds of another class's export.

    Raises:
        WriteError: the folder cannot be written to.
    """
    graph = graph_path(out, settings)
    if settings.bank != "external" or (graph.exists() and manifest_path(graph).exists()):
        yield
        return
    from filelock import FileLock

    with write_errors(out):
        lock = FileLock(_file(out, graph.stem, "graph.lock"))
        lock.acquire(poll_interval=_POLL_S)
    try:
        yield
    finally:
        _release(lock)


def _release(lock: BaseFileLock) -> None:
    """Give a lock back, and leave nothing in the folder of models."""
    path = Path(lock.lock_file)
    # While it is held: whoever waits for it sees that the file is gone, and makes another.
    path.unlink(missing_ok=True)
    lock.release()


def _file(out: Path, name: str, ending: str) -> Path:
    """Beside the models, and not in a folder that one process would remove under another."""
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return out / f"{PREFIX}{name}.{ending}"


def _myself() -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now})


def _shown(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f" (process {found['pid']} on {found['host']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is just about to say so
        return ""
