"""How classes are sent, tried again and called off, on a Ray that is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from patchline.export.fleet.needs import Needs
from patchline.export.fleet.on_ray import PATIENCE_S, TRIES, RayFleet
from patchline.export.fleet.orders import Ended, Order, sharing
from patchline.export.fleet.ray_task import Done, Task
from patchline.export.making.locks import class_lock
from patchline.runtime.cluster.connect import Cluster

from ..drawn import write_good
from .fake_ray import FakeRay, OutOfMemoryError, RayTaskError, WorkerCrashedError
from .jobs import job_of, output_in

NEEDS = Needs(2, 0.5, 1 << 30)
GRAPH = "resnet18-64.onnx"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in ("a", "b", "c"):
        write_good(root / name, 2)
    return root


def orders(data: Path, out: Path, names: str = "abc", **changes: object) -> list[Order]:
    jobs = [job_of(data, name, **changes) for name in names]
    return [Order(job, Task(job, output_in(out), (), 2, Path()), NEEDS) for job in jobs]


def good(task: Task) -> Done:
    return Done(None, (), "10.0.0.1")


def make(
    work: Callable[[Task], Done], wanted: list[Order], out: Path
) -> tuple[list[Ended], FakeRay, list[str]]:
    said: list[str] = []
    ray = FakeRay(work)
    fleet = RayFleet(Cluster(ray, "fake"), out, tell=said.append)
    return list(fleet.make(wanted)), ray, said


def test_every_class_once_with_what_it_needs(data: Path, tmp_path: Path) -> None:
    ended, ray, said = make(good, orders(data, tmp_path), tmp_path)
    assert [item.order.job.pictures.class_name for item in ended] == ["a", "b", "c"]
    assert ray.most == 3
    assert said == []
    assert ray.options[0] == {
        "num_cpus": 2, "num_gpus": 0.5, "memory": 1 << 30, "max_retries": 0, "name": "a",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_tried_again_and_then_given_up(data: Path, tmp_path: Path) -> None:
    tries: Counter[str] = Counter()

    def work(task: Task) -> Done:
        name = task.job.pictures.class_name
        tries[name] += 1
        if name == "a" or (name == "b" and tries["b"] < 3):
            task.started.write_text('{"node": "10.0.0.7", "pid": 1}')
            raise OutOfMemoryError if name == "b" else WorkerCrashedError
        return good(task)

    ended, _, said = make(work, orders(data, tmp_path), tmp_path)
    found = {item.order.job.pictures.class_name: item for item in ended}
    assert tries == {"a": TRIES, "b": 3, "c": 1}
    assert found["a"].done is None
    assert found["a"].error == "its worker died on 10.0.0.7, 4 times"
    assert found["b"].done is not None
    assert "b: its node ran out of memory on 10.0.0.7; made again (2 of 3)" in said


def test_an_error_of_the_code_is_not_tried_again(data: Path, tmp_path: Path) -> None:
    def work(task: Task) -> Done:
        raise RayTaskError(ModuleNotFoundError("no such\nmodule"))

    (ended,), ray, _ = make(work, orders(data, tmp_path, "a"), tmp_path)
    assert (ended.done, ended.error, len(ray.options)) == (
        None,
        "ModuleNotFoundError: no such module",
        1,
    )


def test_a_class_that_another_process_makes_stops_nobody(data: Path, tmp_path: Path) -> None:
    with class_lock(tmp_path, "b"):
        ended, ray, _ = make(good, orders(data, tmp_path), tmp_path)
    errors = {item.order.job.pictures.class_name: item.error for item in ended}
    assert "b is being made in" in errors["b"]
    assert (errors["a"], errors["c"]) == ("", "")
    assert [options["name"] for options in ray.options] == ["a", "c"]


def test_a_graph_that_is_shared_is_written_by_the_first_class_alone(
    data: Path, tmp_path: Path
) -> None:
    begun: list[str] = []

    def work(task: Task) -> Done:
        begun.append(task.job.pictures.class_name)
        (tmp_path / GRAPH).touch()
        return good(task)

    wanted = orders(data, tmp_path, bank="external")
    _, ray, _ = make(work, wanted, tmp_path)
    assert begun == ["a", "b", "c"]
    assert ray.most == 2  # b and c, after a
    (tmp_path / GRAPH).touch()
    assert make(good, wanted, tmp_path)[1].most == 3


def test_who_shares_an_int8_graph(data: Path, tmp_path: Path) -> None:
    output = output_in(tmp_path)
    jobs = [job_of(data, name, bank="external", precision="int8") for name in "ab"]
    other = job_of(data, "c", bank="external", precision="int8", image_size=(96, 96))
    assert sharing(jobs[0], [*jobs, other], output) == (jobs[1],)
    assert sharing(job_of(data, "a"), jobs, output) == ()


def test_a_bank_of_another_class_is_not_sent_along(data: Path, tmp_path: Path) -> None:
    jobs = [job_of(data, name, bank="external", precision="int8") for name in "ab"]
    large = [replace(job, state=cast(Any, "a bank"), deployed=cast(Any, "its")) for job in jobs]
    assert sharing(large[0], large, output_in(tmp_path)) == (jobs[1],)


class Clock:
    """Goes on by a minute each time it is asked."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 60.0
        return self.now_s


def node(memory_bytes: float) -> dict[str, Any]:
    resources = {"CPU": 4.0, "GPU": 1.0, "memory": memory_bytes}
    return {
        "NodeID": "1", "Alive": True, "NodeManagerAddress": "10.0.0.9", "Resources": resources,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("alive", "sentence"),
    [
        ([node(1 << 20)], "no node of the cluster can hold it: it needs 2 CPU threads"),
        ([], "no node of the cluster is alive"),
    ],
)
def test_a_class_that_no_node_is_left_for_is_given_up(
    data: Path, tmp_path: Path, alive: list[dict[str, Any]], sentence: str
) -> None:
    ray, clock = FakeRay(good, pending="b"), Clock()
    ray.alive = alive
    fleet = RayFleet(Cluster(ray, "fake"), tmp_path, tell=pytest.fail, clock=clock)
    ended = {
        item.order.job.pictures.class_name: item for item in fleet.make(orders(data, tmp_path))
    }
    assert [name for name, item in ended.items() if item.done is None] == ["b"]
    assert ended["b"].error.startswith(f"for {PATIENCE_S / 60:.0f} minutes {sentence}")
    assert ray.cancelled == [("b", True)]
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_waits_for_others_is_not_given_up(data: Path, tmp_path: Path) -> None:
    """A node that is gone for a while, and one that only has no room now."""
    pending, clock = {"a"}, Clock()
    ray = FakeRay(good, pending)

    def told(names: Sequence[str]) -> None:
        ray.alive = [] if 240 < clock.now_s < 420 else [node(8 << 30)]
        if clock.now_s > 1200:
            pending.clear()

    fleet = RayFleet(Cluster(ray, "fake"), tmp_path, tell=pytest.fail, show=told, clock=clock)
    (ended,) = fleet.make(orders(data, tmp_path, "a"))
    assert (ended.done is not None, ray.cancelled) == (True, [])
    assert clock.now_s > 1200


def test_what_killed_workers_and_calls_left_goes(data: Path, tmp_path: Path) -> None:
    (tmp_path / ".patchline-call-a").mkdir()
    (tmp_path / ".patchline-call-a" / "old.started").touch()
    left = tmp_path / ".patchline-stage-a-0123abcd"
    seen: list[bool] = []

    def work(task: Task) -> Done:
        seen.append(left.exists() or bool(list(task.started.parent.iterdir())))
        left.mkdir()
        if len(seen) < 3:
            raise WorkerCrashedError
        return good(task)

    make(work, orders(data, tmp_path, "a"), tmp_path)
    assert seen == [False, False, False]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_calls_off_what_runs(data: Path, tmp_path: Path) -> None:
    def work(task: Task) -> Done:
        raise KeyboardInterrupt

    said: list[str] = []
    ray = FakeRay(work)
    fleet = RayFleet(Cluster(ray, "fake"), tmp_path, tell=said.append)
    with pytest.raises(KeyboardInterrupt):
        list(fleet.make(orders(data, tmp_path)))
    assert ray.cancelled == [("b", False), ("c", False)]
    for name in "abc":  # nobody holds them any more
        with class_lock(tmp_path, name):
            pass
