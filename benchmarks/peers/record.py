"""What a part of the benchmark hands back: rows, failures with their reasons, and a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from patchline.runtime.errors import PatchlineError

Row = dict[str, Any]


@dataclass
class Record:
    """Collects the rows of one part.

    Attributes:
        say: tells of failures as they come.
        rows: one per peer and setting.
        failed: who could not be measured, and why; nobody is left out in silence.
    """

    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)

    def attempt(self, setting: Row, action: Callable[[], Any]) -> Any:
        """What ``action`` gives, or ``None`` after noting why it failed."""
        try:
            return action()
        except PatchlineError as error:
            reason = str(error)
            self.failed.append({**setting, "reason": reason})
            named = ", ".join(str(value) for value in setting.values())
            self.say(f"FAILED {named}: {reason}")
            return None

    def document(self, **more: Any) -> dict[str, Any]:
        """For the results file; medians of all rows are of what was measured."""
        return {**more, "rows": self.rows, "failed": self.failed}


def quartiles(values: Sequence[float], digits: int = 3) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if len(values) == 1:
        return (round(values[0], digits),) * 3
    low, middle, high = statistics.quantiles(values, n=4)
    return round(low, digits), round(middle, digits), round(high, digits)


def spread(values: Sequence[float], unit: str) -> Row:
    """Median and quartiles with a unit in their names, and their number."""
    low, middle, high = quartiles(values)
    return {f"median_{unit}": middle, f"q1_{unit}": low, f"q3_{unit}": high, "runs": len(values)}


def show(console: Console, title: str, document: dict[str, Any]) -> None:
    """Print the rows as a table, then what failed."""
    for rows, heading in ((document["rows"], title), (document["failed"], f"{title}: failed")):
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row if _is_shown(row[name])))
        table = Table(title=heading, title_justify="left")
        for name in names:
            is_text = isinstance(rows[0].get(name), str)
            table.add_column(name, justify="left" if is_text else "right", overflow="fold")
        for row in rows:
            table.add_row(*(_text(row.get(name, "")) for name in names))
        console.print(table)


def _is_shown(value: Any) -> bool:
    return not isinstance(value, list)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.3g} ({value['q1']:.3g} to {value['q3']:.3g})"
    return f"{value:g}" if isinstance(value, float) else str(value)
