"""Classes as tasks of a Ray cluster: begun, waited for, tried again, called off (issue 9).

A class whose worker or node dies is tried again by this module and not by Ray, which would try
one that runs out of memory for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchline.export.fleet.needs import misfit
from patchline.export.fleet.orders import Attempt, Ended, Order, first_attempt, missing_graph
from patchline.export.fleet.outcome import sentence_of
from patchline.export.fleet.ray_task import Done, Task, run_class
from patchline.runtime.cluster.connect import Cluster
from patchline.runtime.errors import PatchlineError
from patchline.runtime.files import clear_stages

TRIES = 4
"""The first, and three more where its worker died."""

_AT_ONCE = 256  # a lock file is open for each; Ray queues them by what they need
_POLL_S = 0.5
_CANCEL_S = 10.0
_LOOK_S = 30.0

PATIENCE_S = 300.0
"""How long a class waits for a node that could hold it, once none is left: one may start again."""


class RayFleet:
    """Makes classes on a cluster.

    Args:
        cluster: that this process is connected to.
        folder: of the models, for locks and notes; shared by all nodes.
        tell: told, as a sentence, that a class is tried again.
        show: told the names of the classes that run, again and again.
        work: what a worker does; another one in tests.
        clock: gives seconds; another one in tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        *,
        tell: Callable[[str], None],
        show: Callable[[Sequence[str]], None] = lambda names: None,
        work: Callable[[Task], Done] = run_class,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._ray, self._folder = cluster, cluster.ray, folder
        self._tell, self._show, self._work = tell, show, work
        self._clock, self._looked_s = clock, clock()
        self._running: dict[Any, Attempt] = {}
        self._waiting: deque[Order] = deque()

    def make(self, orders: Sequence[Order]) -> Iterator[Ended]:
        """Make all of them; gives each as it ends.

        Args:
            orders: the classes; those that share a graph which is not there yet wait for the
                first of them, which writes it as it would without Ray.

        Raises:
            KeyboardInterrupt: as it came; what ran is called off.
        """
        self._waiting.extend(orders)
        try:
            while self._waiting or self._running:
                yield from self._begin()
                yield from self._finish()
                yield from self._give_up()
                self._show(self._names())
        finally:
            self._call_off()

    def _begin(self) -> Iterator[Ended]:
        later: list[Order] = []
        while self._waiting and len(self._running) < _AT_ONCE:
            order = self._waiting.popleft()
            if self._waits_for_graph(order):
                later.append(order)
                continue
            try:
                self._submit(first_attempt(self._folder, order))
            except PatchlineError as error:
                yield Ended(order, None, str(error))
        self._waiting.extend(later)

    def _waits_for_graph(self, order: Order) -> bool:
        graph = missing_graph(order)
        return graph is not None and any(
            missing_graph(attempt.order) == graph for attempt in self._running.values()
        )

    def _submit(self, attempt: Attempt) -> None:
        attempt.started.unlink(missing_ok=True)
        needs = attempt.order.needs
        remote = self._ray.remote(self._work).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory_bytes,
            max_retries=0,
            name=attempt.name,
        )
        task = replace(attempt.order.task, started=attempt.started)
        self._running[remote.remote(task)] = attempt

    def _finish(self) -> Iterator[Ended]:
        if not self._running:
            return
        ended, _ = self._ray.wait(list(self._running), timeout=_POLL_S)
        for reference in ended:
            attempt = self._running.pop(reference)
            found = self._result(reference, attempt)
            if found is None:
                clear_stages(self._folder, attempt.name)  # of the worker that died
                self._submit(attempt.next())
                continue
            attempt.held.close()
            yield found

    def _give_up(self) -> Iterator[Ended]:
        """End the classes that no node is left for: Ray would wait for one without end."""
        now = self._clock()
        if now - self._looked_s < _LOOK_S:
            return
        self._looked_s, nodes = now, self._cluster.nodes()
        for reference, attempt in list(self._running.items()):
            problem = None if attempt.started.exists() else misfit(attempt.order.needs, nodes)
            waited_s = attempt.homeless(problem, now)
            if waited_s < PATIENCE_S:
                continue
            self._running.pop(reference)
            with contextlib.suppress(Exception):  # it may have ended by itself
                self._ray.cancel(reference, force=True)
            attempt.held.close()
            yield Ended(attempt.order, None, f"for {waited_s / 60:.0f} minutes {problem}")

    def _result(self, reference: Any, attempt: Attempt) -> Ended | None:
        """How an attempt ended; ``None`` where there is to be another."""
        wrong, order = self._ray.exceptions, attempt.order
        try:
            return Ended(order, self._ray.get(reference))
        except wrong.RayTaskError as error:  # of our own code past what it catches
            return Ended(order, None, sentence_of(error.cause), attempt.node())
        except wrong.RayError as error:
            reason, node = _reason(wrong, error), attempt.node()
        where = f" on {node}" if node else ""
        if attempt.number == TRIES:
            return Ended(order, None, f"{reason}{where}, {TRIES} times", node)
        again = f"made again ({attempt.number} of {TRIES - 1})"
        self._tell(f"{attempt.name}: {reason}{where}; {again}")
        return None

    def _names(self) -> list[str]:
        return [attempt.name for attempt in self._running.values() if attempt.started.exists()]

    def _call_off(self) -> None:
        """End what runs: first as Ctrl-C does, so that nothing half written stays, then at once."""
        for is_forced in (False, True):
            if not self._running:
                return
            for reference in self._running:
                with contextlib.suppress(Exception):  # it may have ended by itself
                    self._ray.cancel(reference, force=is_forced)
            left = list(self._running)
            ended, _ = self._ray.wait(left, num_returns=len(left), timeout=_CANCEL_S)
            for reference in ended:
                self._running.pop(reference).held.close()
        for attempt in self._running.values():
            attempt.held.close()
        self._running.clear()


def _reason(wrong: Any, error: BaseException) -> str:
    if isinstance(error, wrong.OutOfMemoryError):
        return "its node ran out of memory"
    if isinstance(error, wrong.WorkerCrashedError):
        return "its worker died"
    if isinstance(error, wrong.TaskCancelledError):
        return "it was called off"
    return f"its node or worker was lost ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
