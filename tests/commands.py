"""Calling a command in this process, and what it leaves."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Protocol

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
        (document,) = self._parsed(self.stdout)
        return document

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line of standard output as strict JSON; each one is ended."""
        *texts, rest = self.stdout.split("\n")
        assert rest == ""
        return self._parsed(*texts)

    @property
    def sentences(self) -> list[str]:
        """Every error on stderr, and no traceback anywhere."""
        assert "Traceback" not in self.stderr
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]

    @property
    def sentence(self) -> str:
        """The error: the last line of stderr, and no traceback anywhere."""
        assert "Traceback" not in self.stderr
        last = self.stderr.rstrip().splitlines()[-1]
        assert last.startswith("error: ")
        return last

    @staticmethod
    def _parsed(*texts: str) -> list[dict[str, Any]]:
        return [json.loads(text, parse_constant=pytest.fail) for text in texts]


class Call(Protocol):
    """Calls one command with words of its command line."""

    def __call__(self, *words: object) -> Finished: ...


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
