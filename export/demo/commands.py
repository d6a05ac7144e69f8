"""Run the real commands as a user would, each in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

from patchline.runtime.errors import PatchlineError

MODULES = {
    "export-model": "patchline.export.cli.export_model",
    "run-camera": "patchline.runtime.cli.run_camera",
}
"""The module behind each command; run by name, so that no folder of commands must be on PATH."""


class RunCommand(Protocol):
    """Anything that runs a command line: :func:`run_command_line`, or a fake in a test."""

    def __call__(self, words: Sequence[str], *, capture: bool) -> str:
        """Run it; see :func:`run_command_line`."""


def run_command_line(words: Sequence[str], *, capture: bool) -> str:
    """Show a command line, run it, and wait for its end.

    Args:
        words: the command's name, a key of :data:`MODULES`, and its arguments.
        capture: give back what it prints on stdout instead of letting it through.

    Returns:
        Its stdout where captured, otherwise an empty text. Its stderr is always let through.

    Raises:
        PatchlineError: it did not exit with 0; what it said stands above.
    """
    print(f"\n$ {shlex.join(words)}", flush=True)  # noqa: T201
    name, *arguments = words
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], *arguments],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise PatchlineError(f"{name} {_ending(done.returncode)}; what it said stands above")
    return done.stdout or ""


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by signal {-returncode}"
    return f"failed with exit status {returncode}"
