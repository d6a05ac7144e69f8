"""A Ray head of its own for :mod:`patchline.benchmarks.scale`, on as many cores as it has workers.

It is a process as ``ray start --head`` makes it, and is killed with all below it at the end. Ray's
heads listen on every interface, so that each run asks for a token of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from patchline.runtime.archive.machine import usable_cores
from patchline.runtime.errors import ClusterError, ConfigurationError

_STORE_BYTES = 80 << 20  # nothing large goes through it; Ray's least is 75 MiB
_START_S = 120.0
_POLL_S = 0.05
_STARTED = "Ray runtime started"


def environment() -> dict[str, str]:
    """Of every process that is measured: one thread each, and a token that nobody else has.

    The token is asked for, and this one is it, whether or not its user has one in ``~/.ray``.
    """
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
        "RAY_ADDRESS": "",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Give what is started in this context so many cores.

    Raises:
        ConfigurationError: the system lets this process use fewer.
    """
    every = os.sched_getaffinity(0)
    if len(every) < count:
        raise ConfigurationError(
            f"{count} workers need as many cores, and this process may use {usable_cores()}. Give "
            "fewer --workers"
        )
    os.sched_setaffinity(0, sorted(every)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


@contextlib.contextmanager
def ray_head(workers: int, variables: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """A cluster of one node; gives its address and how long it took to start, in seconds.

    Args:
        workers: CPUs that it has to give.
        variables: environment of all its processes.

    Raises:
        ClusterError: it does not start.
        ConfigurationError: as for :func:`on_cores`.
    """
    # Short: sockets lie in it, whose paths may have 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name,
        _ending_on_sigterm(),
    ):
        folder, started = Path(name), time.perf_counter()
        with on_cores(workers):
            node = _start(folder, workers, variables)
        try:
            address = _address(node, folder / "head.log")
            yield address, time.perf_counter() - started
        finally:
            kill_with_children(node)


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all below it, and wait for it."""
    for pid in [*_below(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _start(folder: Path, workers: int, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "head.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                # Ray chooses the port: one that was free a moment ago may be taken by then.
                *("--port=0", "--node-ip-address=127.0.0.1", "--include-dashboard=false"),
                *(f"--temp-dir={folder}", f"--num-cpus={workers}", "--num-gpus=0"),
                *(f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=dict(variables),
        )


def _address(node: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the head says that it runs, and where."""
    until = time.monotonic() + _START_S
    while _STARTED not in (text := log.read_text(errors="replace")):
        if node.poll() is not None or time.monotonic() > until:
            lines = " ".join(text.split()[-60:])
            raise ClusterError(f"ray start --head does not start a cluster here: {lines}")
        time.sleep(_POLL_S)
    found = re.search(r"--address='([^']+)'", text)
    if found is None:
        raise ClusterError("ray start --head does not say its address in the way that it used to")
    return found[1]


def _below(pid: int) -> list[int]:
    """All processes below one."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            for child in map(int, task.read_text().split()):
                found += [*_below(child), child]
    return found


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process by way of its ``finally``, so that no cluster is left."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
