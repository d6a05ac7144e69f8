"""What is asked of a Ray cluster: classes as orders, and their attempts with notes (issue 9)."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchline.export.external_files import graph_path
from patchline.export.fleet.needs import Needs
from patchline.export.fleet.ray_task import Done, Task
from patchline.export.making.locks import class_lock
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.runtime.files import write_errors


@dataclass(frozen=True)
class Order:
    """One class to be made.

    Attributes:
        job: as it was planned here.
        task: the same for a worker; without ``started``.
        needs: of its node.
    """

    job: Job
    task: Task
    needs: Needs


@dataclass(frozen=True)
class Ended:
    """A class that was made, or was not: ``done`` or a sentence about what died."""

    order: Order
    done: Done | None
    error: str = ""
    node: str | None = None


@dataclass
class Attempt:
    """One of the times that a class is sent.

    Attributes:
        order: the class.
        started: file that its worker writes when it begins.
        number: of the attempt, from 1.
        held: the class, until it is over.
        homeless_s: when it was first seen that no node could hold it; ``None`` where one can.
    """

    order: Order
    started: Path
    number: int
    held: contextlib.ExitStack
    homeless_s: float | None = None

    @property
    def name(self) -> str:
        """Of the class."""
        return self.order.job.pictures.class_name

    def next(self) -> Attempt:
        """The attempt after this one."""
        return Attempt(self.order, self.started, self.number + 1, self.held)

    def homeless(self, problem: str | None, now_s: float) -> float:
        """For how many seconds it has waited with no node that could hold it.

        Args:
            problem: why none can now; ``None`` where one can.
            now_s: seconds of a clock.
        """
        if problem is None:
            self.homeless_s = None
            return 0.0
        if self.homeless_s is None:
            self.homeless_s = now_s
        return now_s - self.homeless_s

    def node(self) -> str | None:
        """IP address of the node that it was begun on; ``None`` where that is not known."""
        try:
            return str(json.loads(self.started.read_text(encoding="utf-8"))["node"])
        except (OSError, ValueError, KeyError):
            return None


def first_attempt(folder: Path, order: Order) -> Attempt:
    """Hold a class, with an empty folder for notes that goes when it is given back.

    Args:
        folder: of the models.
        order: the class.

    Raises:
        PatchlineError: another process holds it, or the folder cannot be written to.
    """
    name = order.job.pictures.class_name
    with contextlib.ExitStack() as stack:
        stack.enter_context(class_lock(folder, name))
        notes = stack.enter_context(_notes(folder, name))
        return Attempt(order, notes / f"{name}.started", 1, stack.pop_all())


@contextlib.contextmanager
def _notes(folder: Path, name: str) -> Iterator[Path]:
    notes = folder / f".patchline-call-{name}"
    shutil.rmtree(notes, ignore_errors=True)  # of a call that was killed
    with write_errors(folder):
        notes.mkdir()
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def sharing(job: Job, jobs: Sequence[Job], output: Output) -> tuple[Job, ...]:
    """The others that an INT8 graph of a class is made for; none where it shares none.

    They are without their states: only pictures and settings count, and a bank is large to send.

    Args:
        job: the class.
        jobs: all classes of the call.
        output: where to.
    """
    settings = job.settings
    if settings.bank != "external" or settings.precision != "int8":
        return ()
    graph = graph_path(output.folder, settings)
    return tuple(
        replace(other, state=None, deployed=None)
        for other in jobs
        if other is not job
        and other.settings.bank == "external"
        and other.settings.precision == "int8"
        and graph_path(output.folder, other.settings) == graph
    )


def missing_graph(order: Order) -> Path | None:
    """The graph that a class shares, where it is not there yet."""
    settings = order.task.job.settings
    if settings.bank != "external":
        return None
    graph = graph_path(order.task.output.folder, settings)
    return None if graph.exists() else graph
