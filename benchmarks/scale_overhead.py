"""What a cluster costs per task, from tasks that do nothing; one process of the scale benchmark.

``python -m patchline.benchmarks.scale_overhead ADDRESS MODEL TASKS``, on a cluster that runs. An
empty class goes the way of every class: its lock, its note, Ray, the wait. An empty part holds one
picture that is not there: its row has an error, and its file is written as every other.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchline.export.config import make_settings
from patchline.export.datasets import GoodPictures
from patchline.export.fleet.needs import Needs
from patchline.export.fleet.on_ray import RayFleet
from patchline.export.fleet.orders import Order
from patchline.export.fleet.ray_task import Done, Task, tell_start
from patchline.export.making.locks import class_lock
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.runtime.archive.listing import ListedPicture
from patchline.runtime.archive.on_ray import RayParts, Share
from patchline.runtime.archive.parts import Part
from patchline.runtime.archive.run import score_here
from patchline.runtime.archive.scorer import ScoreJob
from patchline.runtime.archive.settings import make_settings as archive_settings
from patchline.runtime.cli.camera_engine import EngineOptions, open_camera_engine
from patchline.runtime.cli.command import Provider, print_warning
from patchline.runtime.cluster.connect import Cluster, connected
from patchline.runtime.errors import ClusterError

_TASK_BYTES = 1 << 20


def overheads(address: str, model: Path, tasks: int) -> dict[str, float]:
    """Milliseconds per empty task on a cluster and without one.

    Args:
        address: of a cluster.
        model: for the archive; absolute.
        tasks: of each kind, at least 3.
    """
    with connected(address) as cluster, tempfile.TemporaryDirectory(prefix="patchline-") as name:
        folder = Path(name)
        return {
            "ray_task_ms": _per_task_ms(_bare_tasks(cluster, tasks)),
            "class_on_ray_ms": _per_task_ms(_classes_on_ray(cluster, folder / "ray", tasks)),
            "class_without_ray_ms": _per_task_ms(_classes_here(folder / "here", tasks)),
            "part_on_ray_ms": _per_task_ms(_parts(cluster, folder / "archive", model, tasks)),
            "part_without_ray_ms": _per_task_ms(_parts(None, folder / "alone", model, tasks)),
        }


def _per_task_ms(results: Iterable[object]) -> float:
    """From the end of the first task to the end of the last: what happens once is no part of it."""
    moments = [time.perf_counter() for _ in results]
    return round(1e3 * (moments[-1] - moments[0]) / (len(moments) - 1), 4)


def _bare_tasks(cluster: Cluster, tasks: int) -> Iterator[object]:
    """Ray alone: one task after the other, each waited for."""
    remote = cluster.ray.remote(num_cpus=1)(_nothing)
    for _ in range(tasks):
        yield cluster.ray.get(remote.remote())


def _nothing() -> None:
    return None


def _empty_class(task: Task) -> Done:
    return Done(None, (), tell_start(task.started))


def _classes_on_ray(cluster: Cluster, folder: Path, tasks: int) -> Iterator[object]:
    folder.mkdir()
    fleet = RayFleet(cluster, folder, tell=print_warning, work=_empty_class)
    for ended in fleet.make([_order(folder, number) for number in range(tasks)]):
        if ended.done is None:
            raise ClusterError(f"a class that does nothing failed on the cluster: {ended.error}")
        yield ended


def _classes_here(folder: Path, tasks: int) -> Iterator[object]:
    folder.mkdir()
    for number in range(tasks):
        order = _order(folder, number)
        with class_lock(folder, order.job.pictures.class_name):
            yield _empty_class(order.task)


def _order(folder: Path, number: int) -> Order:
    pictures = GoodPictures(f"class-{number}", folder, (folder / "0.png",))
    job = Job(pictures, make_settings({"backbone": "resnet18", "weights": "random"}))
    output = Output(folder, as_json=True, is_forced=False, sensitivity=None)
    task = Task(job, output, (), 1, folder / f"{number}.started")
    return Order(job, task, Needs(1, 0.0, _TASK_BYTES))


def _parts(cluster: Cluster | None, out: Path, model: Path, tasks: int) -> Iterator[object]:
    out.mkdir()
    engine = EngineOptions(model, provider=Provider.CPU, threads=1)
    job = ScoreJob(
        root=out,
        out=out,
        model=model,
        bank=None,
        settings=archive_settings(model, None),
        readers=1,
        open_engine=functools.partial(open_camera_engine, engine),
    )
    parts = [Part(number, (ListedPicture("none.png", 0, 0),)) for number in range(tasks)]
    score = score_here if cluster is None else RayParts(cluster, Share(workers=1))
    return iter(score(job, parts, _ignore))


def _ignore(done: int) -> None:
    return None


def main() -> None:
    """Print the figures as JSON on the last line."""
    address, model, tasks = sys.argv[1:]
    found: dict[str, Any] = overheads(address, Path(model), int(tasks))
    print(json.dumps(found), flush=True)  # noqa: T201 (its parent reads it)


if __name__ == "__main__":
    main()
