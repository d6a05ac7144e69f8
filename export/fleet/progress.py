"""One bar over all classes of a call that a cluster makes (issue 9)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

_NAMED = 3


class FleetProgress:
    """Shows how many classes are done, how many failed and which run.

    Args:
        console: of the bar.
        total: classes to make.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._done = self._failed = 0
        self._running: tuple[str, ...] = ()
        self._bar: tuple[Any, Any] | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the context is open."""
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        text = TextColumn("  {task.description}", table_column=None)
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), text)
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(escape(self.text), total=self._total)
            self._bar = (progress, task)
            try:
                yield
            finally:
                self._bar = None

    def ended(self, *, is_failed: bool) -> None:
        """One class more is over."""
        self._done += 1
        self._failed += is_failed
        self._update()

    def running(self, names: Sequence[str]) -> None:
        """These classes run now."""
        self._running = tuple(names)
        self._update()

    @property
    def text(self) -> str:
        """What stands behind the bar."""
        more = len(self._running) - _NAMED
        names = ", ".join(self._running[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        parts = [f"{self._failed} failed"] if self._failed else []
        return "; ".join([*parts, f"running: {names}" if names else "waiting for the cluster"])

    def _update(self) -> None:
        from rich.markup import escape

        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=self._done, description=escape(self.text))
