"""Progress bars with the remaining time, on stderr; silent where nobody looks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from patchline.runtime.interrupt import raise_if_interrupted

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int], None]
"""Called with the number of units done so far."""


class Steps(Protocol):
    """Shows the steps of a long job."""

    def step(self, name: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Show one step of ``total`` units while the context is open."""


class SilentSteps:
    """Shows nothing."""

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        """Show nothing."""
        yield lambda done: None


class ConsoleSteps:
    """One bar per step on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        """Show one step."""
        # Here, because a program that opens an engine and shows nothing should not pay for it.
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("  {task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        raise_if_interrupted()
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=total)

            def advance(done: int) -> None:
                raise_if_interrupted()
                progress.update(task, completed=done)

            yield advance
            advance(total)
