"""``run-camera`` at work: started as a program, watched by what it writes, ended by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

PROGRAM = [sys.executable, "-m", "patchline.runtime.cli.run_camera"]
PATIENCE_S = 40.0
"""How long a thing may take that is done in a moment: the machine may be busy."""

T = TypeVar("T")


def eventually(find: Callable[[], T | None], what: Callable[[], object] = lambda: "") -> T:
    """What ``find`` gives once it is neither ``None`` nor false; an AssertionError otherwise."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < end, what()
        time.sleep(0.02)


class RunningLine:
    """A line; SIGKILL ends what a test has left.

    Args:
        folder: empty, for its streams and its state.
        words: of the command line; ``--headless`` and ``--state`` are added.
        environment: added to this process's.
        before: a program that starts it, such as ``bash -c``.
    """

    def __init__(
        self,
        folder: Path,
        *words: object,
        environment: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        # The first --state counts for nobody: a test's own comes later and is the one that holds.
        words = ("--headless", "--state", folder / "state", *words)
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*before, *PROGRAM, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
            )

    def __enter__(self) -> RunningLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def sentence(self) -> str:
        """The one error, and no traceback anywhere."""
        assert "Traceback" not in self.stderr
        (line,) = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return line

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("warning: ")]

    def lines(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The whole JSON lines so far, or those of one type."""
        *texts, _ = self.stdout.split("\n")
        found = [json.loads(text, parse_constant=_refuse) for text in texts]
        return [line for line in found if kind in (None, line["type"])]

    def frames(self, camera: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self.lines("frame") if camera in (None, line["camera"])]

    def states(self, camera: str | None = None) -> list[str]:
        found = self.lines("state")
        return [line["state"] for line in found if camera in (None, line["camera"])]

    def wait(self, find: Callable[[], T | None]) -> T:
        """What ``find`` gives once it does, while the line runs."""

        def look() -> T | None:
            found = find()
            assert found or self.process.poll() is None, self.stderr
            return found

        return eventually(look, lambda: f"{self.stdout[-2000:]}\n{self.stderr}")

    def wait_for_frames(self, more: int = 1, camera: str | None = None) -> None:
        """Wait until so many more frames are judged."""
        goal = len(self.frames(camera)) + more
        self.wait(lambda: len(self.frames(camera)) >= goal)

    def wait_for_words(self, words: str, times: int = 1) -> None:
        """Wait until a text is on stderr."""
        self.wait(lambda: self.stderr.count(words) >= times)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit status."""
        self.send(number)
        return self.status()

    def status(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(PATIENCE_S)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, also of sub-folders."""
    return (path for path in folder.rglob("*") if path.is_file())


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
