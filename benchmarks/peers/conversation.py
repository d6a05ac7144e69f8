"""Talking to a worker: one JSON line asked, one answered, in time or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from patchline.runtime.errors import EngineError

SCRIPTS = Path(__file__).parent
_CHUNK = 1 << 16


class Worker:
    """A worker process that stays until it is closed.

    Args:
        name: of the peer, for messages.
        python: of its environment.
        script: a file beside this one, or anywhere.
        scratch: folder it runs in, which also gets its log.
        threads: it may compute with.
        variant: of the script.
        start_limit_s: time to load its libraries.

    Raises:
        EngineError: it does not start.
    """

    def __init__(
        self,
        name: str,
        python: Path,
        script: str,
        scratch: Path,
        *,
        threads: int,
        variant: str = "run",
        start_limit_s: float = 300,
    ) -> None:
        self._name = name
        scratch.mkdir(parents=True, exist_ok=True)
        self._log = scratch / f"{name}.log"
        command = [str(python), str(SCRIPTS / "worker.py"), str(SCRIPTS / script), variant]
        self._rest = b""
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment(threads), cwd=scratch,
            )  # fmt: skip
        try:
            self.hello = self._answer(start_limit_s)
        except BaseException:
            self.close()
            raise

    def ask(self, command: str, *, limit_s: float = 1200, **given: Any) -> dict[str, Any]:
        """Have a command done.

        Raises:
            EngineError: the peer failed, ended, or took longer than ``limit_s`` and was ended.
        """
        request = json.dumps({"do": command, **given}) + "\n"
        try:
            _stream(self._process.stdin).write(request.encode())
            _stream(self._process.stdin).flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer(limit_s)

    def close(self) -> None:
        """End the process, gently where it listens. A second call does nothing."""
        if self._process.poll() is None:
            try:
                _stream(self._process.stdin).close()
                self._process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not read any more
                _stream(stream).close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):  # it may be in the middle of something long
            self._process.kill()
        self.close()

    def _answer(self, limit_s: float) -> dict[str, Any]:
        answer = json.loads(self._line(time.monotonic() + limit_s, limit_s))
        if "error" in answer:
            raise EngineError(f"{self._name}: {answer['error']}")
        found: dict[str, Any] = answer["ok"]
        return found

    def _line(self, until: float, limit_s: float) -> bytes:
        output = _stream(self._process.stdout)
        with selectors.DefaultSelector() as ready:
            ready.register(output, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not ready.select(max(0.0, until - time.monotonic())):
                    self._process.kill()
                    raise EngineError(f"{self._name} did not finish within {limit_s:g} s")
                chunk = os.read(output.fileno(), _CHUNK)
                if not chunk:
                    raise self._ended()
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _ended(self) -> EngineError:
        status = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["nothing was said"]
        return EngineError(f"{self._name} ended with status {status}: {lines[-1]}")


def environment(threads: int) -> dict[str, str]:
    """Of every worker: the same number of threads, no network, nothing of the user's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1", "TQDM_DISABLE": "1"}
    return own | dict.fromkeys(counts, str(threads)) | offline


def _stream(pipe: Any) -> Any:
    assert pipe is not None, "a worker has pipes"
    return pipe
