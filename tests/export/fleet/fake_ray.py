"""A Ray without a cluster: tasks end when and how a test says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

from patchline.export.fleet.ray_task import Done, Task


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's: its first line says where it came up, in colour, and the cause is beside it.

    Args:
        cause: what was raised in the worker.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"\x1b[36mray::run_class()\x1b[39m (pid=1, ip=10.0.0.1)\n  {cause!r}")
        self.cause = cause


class WorkerCrashedError(RayError):
    """As Ray's."""


class OutOfMemoryError(RayError):
    """As Ray's."""


class TaskCancelledError(RayError):
    """As Ray's."""


class FakeRay:
    """Runs a task at once, when it is waited for.

    Args:
        work: what a task does; an error that it raises is what Ray says of it.
        pending: names of tasks that no node is found for.

    Attributes:
        most: largest number of tasks that were begun and not over.
        options: of each task, in the order they were begun.
        alive: nodes as Ray tells of them.
        cancelled: names of tasks that were called off, and whether by force.
    """

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        WorkerCrashedError=WorkerCrashedError,
        OutOfMemoryError=OutOfMemoryError,
        TaskCancelledError=TaskCancelledError,
    )

    def __init__(self, work: Callable[[Task], Done], pending: Collection[str] = ()) -> None:
        self._work, self._pending = work, pending
        self.alive: list[dict[str, Any]] = []
        self._begun: dict[int, tuple[str, Task]] = {}
        self.most = 0
        self.options: list[dict[str, Any]] = []
        self.cancelled: list[tuple[str, bool]] = []

    def remote(self, function: object) -> Any:
        def begin(task: Task) -> int:
            reference = len(self.options)
            self._begun[reference] = (self.options[-1]["name"], task)
            self.most = max(self.most, len(self._begun))
            return reference - 1

        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda task: begin(task) + 1)

        return SimpleNamespace(options=options)

    def wait(
        self, references: Sequence[int], num_returns: int = 1, timeout: float = 0.0
    ) -> tuple[list[int], list[int]]:
        done = [at for at in references if self._begun[at][0] not in self._pending][:num_returns]
        return done, [at for at in references if at not in done]

    def nodes(self) -> list[dict[str, Any]]:
        return self.alive

    def get(self, reference: int) -> Done:
        _, task = self._begun.pop(reference)
        return self._work(task)

    def cancel(self, reference: int, *, force: bool) -> None:
        self.cancelled.append((self._begun[reference][0], force))
