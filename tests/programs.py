"""Programs that a test starts and waits for: none is waited for without an end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

LIMIT_S = 500.0
"""Less than the limit of a test, which could not show what the program said."""


def run_program(
    command: Sequence[Any], *, limit_s: float = LIMIT_S, **given: Any
) -> subprocess.CompletedProcess[Any]:
    """As :func:`subprocess.run`; where it does not end well, a test fails with what was said.

    Args:
        command: program and words.
        limit_s: how long it may take.
        given: to :func:`subprocess.run`; what is not captured is seen where pytest captures it.
    """
    try:
        return subprocess.run(command, timeout=limit_s, **given)
    except subprocess.TimeoutExpired as error:
        ending, said = f"did not end within {limit_s:g} s", (error.stdout, error.stderr)
    except subprocess.CalledProcessError as error:
        ending, said = f"ended with status {error.returncode}", (error.stdout, error.stderr)
    pytest.fail(f"{list(map(str, command))} {ending}:\n{''.join(map(_text, said))}", pytrace=False)


def _text(said: str | bytes | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
