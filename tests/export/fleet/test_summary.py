"""The table of a call for several classes, its bar, and sentences of errors."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from patchline.export.fleet.outcome import Outcome, Result, failed, sentence_of
from patchline.export.fleet.progress import FleetProgress
from patchline.export.fleet.summary import print_failure, print_summary
from patchline.runtime.errors import DataError


def table(*outcomes: Outcome) -> str:
    written = io.StringIO()
    print_summary(outcomes, Console(file=written, width=120))
    return written.getvalue()


def test_a_line_for_each_class() -> None:
    shown = table(
        Outcome("bottle", Result.DONE, 12.34, "10.0.0.3", 209, 1.23456),
        Outcome("pill", Result.UP_TO_DATE, images=12, threshold=2.0),
        failed("[red]cap[/red]", DataError("no pictures"), "10.0.0.4"),
        Outcome("lid", Result.NOT_MADE),
    )
    assert "4 classes: 1 done, 1 up to date, 1 failed, 1 not made" in shown
    for words in (
        ("bottle", "done", "12.3", "10.0.0.3", "209", "1.235"),
        ("pill", "up to date", "12", "2"),
        ("[red]cap[/red]", "failed", "10.0.0.4", "no pictures"),
        ("lid", "not made"),
    ):
        (line,) = [line for line in shown.splitlines() if words[0] in line]
        assert all(word in line for word in words)


def test_no_column_without_use() -> None:
    shown = table(Outcome("bottle", Result.DONE, 1.0))
    assert "node" not in shown
    assert "error" not in shown


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("no pictures"), "no pictures"),
        (FileNotFoundError(2, "No such file", "a.png"), "a.png: No such file"),
        (RuntimeError("out of\n memory"), "RuntimeError: out of memory"),
    ],
)
def test_what_an_error_says(error: Exception, sentence: str) -> None:
    assert sentence_of(error) == sentence


def test_a_failure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_failure(failed("bottle", "no", "10.0.0.3"))
    print_failure(failed("pill", "no"))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"class": "bottle", "result": "failed", "error": "no", "node": "10.0.0.3"},
        {"class": "pill", "result": "failed", "error": "no"},
    ]


def test_the_bar_names_what_runs() -> None:
    written = io.StringIO()
    progress = FleetProgress(Console(file=written, width=120), 9)
    assert progress.text == "waiting for the cluster"
    with progress.shown():
        progress.running(["a", "b", "c", "d[x]", "e"])
        assert progress.text == "running: a, b, c and 2 more"
        progress.ended(is_failed=True)
        progress.running(["d[x]"])
        assert progress.text == "1 failed; running: d[x]"
    assert "1/9" in written.getvalue()
    assert "d[x]" in written.getvalue()
