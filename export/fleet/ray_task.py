"""What a worker of a Ray cluster does: it makes one class as a call without Ray would (issue 9)."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchline.export.coreset_sharded import RunShards
from patchline.export.fleet.outcome import sentence_of
from patchline.export.fleet.recorded import Report, light, make_recorded
from patchline.export.fleet.shards import ShardsOnRay
from patchline.export.fleet.threads import use_threads
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.runtime.errors import PatchlineError


@dataclass(frozen=True)
class Task:
    """One class for one worker; all paths are absolute.

    Attributes:
        job: how it comes about.
        output: where to.
        jobs: the other classes that share an INT8 graph with it, without their states.
        threads: that it may use.
        started: file that the worker writes when it begins: who it is.
    """

    job: Job
    output: Output
    jobs: Sequence[Job]
    threads: int
    started: Path


@dataclass(frozen=True)
class Done:
    """What a worker says of its class.

    Attributes:
        report: of the class; ``None`` where it failed.
        warnings: sentences for its user.
        node: IP address of the worker's node.
        error: why it failed, a sentence.
        trace: where an error that is not one of ours came from.
    """

    report: Report | None
    warnings: tuple[str, ...]
    node: str
    error: str | None = None
    trace: str | None = None


def run_class(task: Task) -> Done:
    """Make one class; what goes wrong is part of the answer, so that Ray does not try it again.

    Args:
        task: what to do.
    """
    from patchline.export.making.timed_steps import TimedSteps
    from patchline.export.tracking.base import NoTracker
    from patchline.runtime.cli.command import warnings_told
    from patchline.runtime.progress import SilentSteps

    node, said = tell_start(task.started), list[str]()
    use_threads(task.threads)
    try:
        with warnings_told(said.append):
            steps = TimedSteps(SilentSteps())
            found = make_recorded(
                task.job, task.output, steps, NoTracker(), jobs=task.jobs, run_shards=_shards(task)
            )
    except Exception as error:
        is_ours = isinstance(error, (PatchlineError, OSError))
        trace = None if is_ours else traceback.format_exc()
        return Done(None, tuple(said), node, sentence_of(error), trace)
    return Done(replace(found, made=light(found.made, task.output.folder)), tuple(said), node)


def tell_start(started: Path) -> str:
    """Note who begins, and give this node's IP address.

    Args:
        started: the file to write.
    """
    import ray.util

    node = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    with contextlib.suppress(OSError):  # only the progress would want it
        started.write_text(json.dumps({"node": node, "pid": os.getpid()}), encoding="utf-8")
    return node


def _shards(task: Task) -> RunShards:
    """Where the shards of a coreset are covered: on the cluster, but none that lies on a GPU."""
    if task.job.settings.coreset != "sharded" or task.job.settings.device != "cpu":
        return map
    import ray

    # A folder of this attempt's own: claims of a worker that died are nobody's any more.
    notes = Path(tempfile.mkdtemp(prefix="shards-", dir=task.started.parent))
    return ShardsOnRay(ray, notes, task.threads)
