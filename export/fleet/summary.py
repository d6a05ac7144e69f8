"""The end of a call for several classes: a table of what became of each, or lines of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patchline.export.fleet.outcome import Outcome, Result

_STYLES = {Result.FAILED: "red", Result.NOT_MADE: "yellow"}


def print_summary(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a line for each class.

    Args:
        outcomes: in the order of the lines.
        console: to print on.
    """
    has_nodes = any(outcome.node for outcome in outcomes)
    table = Table(title=_title(outcomes), title_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    if has_nodes:
        table.add_column("node")
    table.add_column("pictures", justify="right")
    table.add_column("threshold", justify="right")
    if any(outcome.error for outcome in outcomes):
        table.add_column("error", overflow="fold", ratio=1)
    for outcome in outcomes:
        table.add_row(*_cells(outcome, has_nodes=has_nodes))
    console.print(table)


def print_failure(outcome: Outcome) -> None:
    """Print a class that failed as a line of JSON on stdout."""
    line: dict[str, Any] = {
        "class": outcome.class_name,
        "result": outcome.result.value,
        "error": outcome.error,
    }
    if outcome.node is not None:
        line["node"] = outcome.node
    typer.echo(json.dumps(line))


def _title(outcomes: Sequence[Outcome]) -> Text:
    counts = Counter(outcome.result for outcome in outcomes)
    found = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
    return Text(f"{len(outcomes)} classes: {found}")


def _cells(outcome: Outcome, *, has_nodes: bool) -> list[Text]:
    result = Text(outcome.result.value, style=_STYLES.get(outcome.result, ""))
    node = [Text(outcome.node or "")] if has_nodes else []
    return [
        Text(outcome.class_name),
        result,
        _number(outcome.seconds, ".1f"),
        *node,
        _number(outcome.images, "d"),
        _number(outcome.threshold, ".4g"),
        *([Text(outcome.error)] if outcome.error else []),
    ]


def _number(value: float | None, form: str) -> Text:
    return Text("" if value is None else format(value, form))
