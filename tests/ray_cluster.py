"""A real Ray cluster of separate processes on this machine, and what takes it down for sure."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_STORE_BYTES = 80 << 20  # Ray's least is 75 MiB
_START_S = 120.0


class RayCluster:
    """A head and any number of further nodes, each a process group of its own.

    Attributes:
        address: ``HOST:PORT``; empty until the head runs.
        folder: for what Ray writes; short, since sockets lie in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, cpus: int = 1, resources: str = "{}") -> None:
        """Start a node (the first one is the head) and wait until it is part of the cluster."""
        # Ray chooses the port: one that was free a moment ago may be another cluster's by then.
        where = (
            (f"--address={self.address}",)
            if self.address
            else ("--head", "--port=0", f"--temp-dir={self.folder}", "--include-dashboard=false")
        )
        log = (self.folder / f"{name}.log").open("wb")
        self._nodes[name] = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block"),
                *(f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", "--num-gpus=0"),
                *(f"--resources={resources}", f"--object-store-memory={_STORE_BYTES}"),
                "--disable-usage-stats",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"},
        )
        log.close()
        self._wait(name)

    def pid(self, name: str) -> int:
        """Process that all others of a node are below."""
        return self._nodes[name].pid

    def kill(self, name: str) -> None:
        """Kill a node at once, as a power cut does."""
        node = self._nodes.pop(name)
        for pid in [*children(node.pid), node.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """Kill all that is left, the head last."""
        for name in reversed(list(self._nodes)):
            self.kill(name)

    def _wait(self, name: str) -> None:
        log, until = self.folder / f"{name}.log", time.monotonic() + _START_S
        while "Ray runtime started" not in (text := log.read_text(errors="replace")):
            if self._nodes[name].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no Ray node: {text}")
            time.sleep(0.1)
        if not self.address:
            found = re.search(r"--address='([^']+)'", text)
            if found is None:
                raise RuntimeError(f"a Ray head that does not give its address: {text}")
            self.address = found[1]


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """An empty cluster; what is left of it at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def own_token() -> Iterator[None]:
    """A token for the clusters of a test alone, whatever the home folder of its user holds.

    Ray's heads ask for one and listen on every interface: without it anybody could run code here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        _forget_mode()
        yield
    _forget_mode()


def _forget_mode() -> None:
    """Ray reads these variables once, when it is imported; another test may have done so."""
    with contextlib.suppress(ImportError):  # older ones have no tokens
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """All processes below one, deepest last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found
