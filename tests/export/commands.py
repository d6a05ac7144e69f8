"""Calling a command in this process, and what it leaves."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Finished:
    """Exit status and streams of a command."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as strict JSON: NaN and Infinity would fail."""
        document: dict[str, Any] = json.loads(self.stdout, parse_constant=pytest.fail)
        return document

    @property
    def sentence(self) -> str:
        """The error: the last line of stderr, and no traceback anywhere."""
        assert "Traceback" not in self.stderr
        last = self.stderr.rstrip().splitlines()[-1]
        assert last.startswith("error: ")
        return last


class Caller:
    """Calls the ``main`` of a command's module with words of a command line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, command: Any, *words: object) -> Finished:
        self._monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            command.main()
        captured = self._capsys.readouterr()
        return Finished(int(left.value.code or 0), captured.out, captured.err)
