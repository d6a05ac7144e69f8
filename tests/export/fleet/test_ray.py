"""Classes on a real cluster of two nodes: as in one process, and when a worker and a node die."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest
import torch

from patchline.export.cli import export_model as command
from patchline.export.cli.export_on_ray import _MODULES
from patchline.export.coreset import Coreset
from patchline.export.coreset_sharded import (
    RunShards,
    ShardCover,
    Sharding,
    ShardTask,
    sharded_coreset,
)
from patchline.export.fleet.needs import Needs, needs_of
from patchline.export.fleet.on_ray import RayFleet
from patchline.export.fleet.orders import Order
from patchline.export.fleet.portable import portable_job, portable_output
from patchline.export.fleet.ray_task import Done, Task
from patchline.export.fleet.shards import ShardsOnRay
from patchline.runtime.cluster.connect import connected
from patchline.runtime.cluster.nodes import check_nodes
from patchline.runtime.errors import ClusterError
from tests.commands import Caller
from tests.ray_cluster import RayCluster, children, own_token, ray_cluster

from ..drawn import write_good
from .jobs import job_of, output_in

pytest.importorskip("ray")

QUICK = (
    *("--backbone", "resnet18", "--weights", "random", "--image-size", "64"),
    *("--coreset-ratio", "0.4", "--device", "cpu"),
)
PATIENT_S = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with own_token(), ray_cluster() as running:
        running.start("head")
        running.start("second")
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class, and one with a picture that cannot be read."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(("caps", "torn")):
        write_good(root / name, 4, first_seed=100 * number)
    (root / "torn" / "000.png").write_bytes(b"torn")
    return root


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as this process makes it."""
    out = tmp_path_factory.mktemp("alone")
    make_alone(data, "caps", out)
    return out


def make_alone(data: Path, name: str, out: Path) -> None:
    """Make a class in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        words = ("--cls", name, "--data", str(data), "--out", str(out), *QUICK)
        patch.setattr("sys.argv", ["export-model", *words])
        command.main()
    assert not ended.value.code


def assert_same(found: Path, expected: Path, name: str) -> None:
    """The same model to the byte, and its state."""
    for ending in ("onnx", "json", "safetensors"):
        file = f"{name}.{ending}"
        assert (found / file).read_bytes() == (expected / file).read_bytes(), file


def test_a_call_gives_the_models_of_one_process(
    cluster: RayCluster,
    data: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative --out, which no worker has
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    words = ("--cls", "all", "--data", data, "--out", "models", *QUICK, "--ray", "auto", "--json")
    finished = Caller(monkeypatch, capsys)(command, *words)
    assert finished.status == 1
    lines = {line["class"]: line for line in finished.lines}
    assert set(lines) == {"caps", "torn"}
    assert lines["caps"]["model"] == "models/caps.onnx"
    assert "000.png" in lines["torn"]["error"]
    assert lines["torn"]["node"]
    assert (lines["caps"]["result"], lines["torn"]["result"]) == ("done", "failed")
    assert_same(tmp_path / "models", alone, "caps")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        "caps.job.json", "caps.json", "caps.onnx", "caps.safetensors",
    ]  # fmt: skip
    assert "2 classes: 1 done, 1 failed" in finished.stderr
    assert "warning: caps: 4 good pictures support" in finished.stderr
    assert f"error: torn: {lines['torn']['error']}" in finished.stderr
    assert "raylet" not in finished.stderr
    assert "Traceback" not in finished.stderr

    again = Caller(monkeypatch, capsys)(command, *words)
    assert "caps: up to date" in again.stderr
    assert {line["class"]: line["result"] for line in again.lines} == {
        "caps": "up to date", "torn": "failed",
    }  # fmt: skip
    assert "2 classes: 1 up to date, 1 failed" in again.stderr


def test_what_no_node_sees(cluster: RayCluster, tmp_path: Path) -> None:
    with connected(cluster.address, PATIENT_S) as connection:
        nodes = connection.nodes()
        assert len(nodes) == 2
        assert check_nodes(connection, paths=[tmp_path], out=tmp_path, modules=_MODULES) == nodes
        assert list(tmp_path.iterdir()) == []


def test_a_node_without_this_package(cluster: RayCluster, tmp_path: Path) -> None:
    from patchline.runtime.cluster import nodes

    def ask(*given: object) -> nodes.Answers:
        answers = nodes.ask_nodes(*given)  # type: ignore[arg-type]
        last = list(answers)[-1]
        facts = answers[last]
        assert not isinstance(facts, str)
        facts.versions["patchline"] = "0.0.1"
        return answers

    with (
        connected(cluster.address, PATIENT_S) as connection,
        pytest.raises(ClusterError, match=r"it has patchline 0\.0\.1, this machine"),
    ):
        check_nodes(connection, paths=[], out=tmp_path, ask=ask)


def dying_once(task: Task) -> Done:
    """The first time, end the worker as the system would."""
    import os

    from patchline.export.fleet.ray_task import tell_start

    node, first = tell_start(task.started), task.output.folder / "first"
    if not first.exists():
        first.touch()
        os._exit(1)
    return Done(None, (), node)


def test_a_worker_dies_and_another_does_its_work(
    cluster: RayCluster, data: Path, tmp_path: Path
) -> None:
    out, said = portable_output(output_in(tmp_path)), list[str]()
    job = portable_job(job_of(data, "caps"), "cpu")
    order = Order(job, Task(job, out, (), 1, Path()), Needs(1, 0, 1 << 20))
    with connected(cluster.address, PATIENT_S) as connection:
        fleet = RayFleet(connection, tmp_path, tell=said.append, work=by_value(dying_once))
        (ended,) = fleet.make([order])
    assert ended.done is not None
    assert said == [f"caps: its worker died on {ended.done.node}; made again (1 of 3)"]


def cover_after(folder: Path, driver: int, task: ShardTask) -> ShardCover:
    """Cover a shard; in the process of the tests, once a worker has covered another one."""
    import os
    import time

    from patchline.export.coreset_sharded import shard_cover

    if os.getpid() != driver:
        found = shard_cover(task)
        (folder / f"{os.getpid()}.worker").touch()
        return found
    while not list(folder.glob("*.worker")):
        time.sleep(0.05)
    return shard_cover(task)


def test_shards_of_a_class_are_covered_by_several_workers(
    cluster: RayCluster, tmp_path: Path
) -> None:
    rows = torch.rand(600, 16, generator=torch.Generator().manual_seed(3))
    candidates = torch.ones(len(rows), dtype=torch.bool)

    def pick(run: RunShards) -> Coreset:
        return sharded_coreset(
            lambda first, last: rows[first:last], candidates, 20, Sharding(4, 1.0, 600, run)
        )

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "notes").mkdir()
    with connected(cluster.address, PATIENT_S) as connection:
        shards = ShardsOnRay(connection.ray, tmp_path / "notes", torch.get_num_threads())
        slowly = functools.partial(cover_after, tmp_path, os.getpid())
        found = pick(lambda cover, tasks: shards(slowly, tasks))
    expected = pick(map)
    assert torch.equal(found.indices, expected.indices)
    assert found.radius == expected.radius


def waiting_once(task: Task) -> Done:
    """Make the class; the first time, once there is a file ``go``."""
    import time

    from patchline.export.fleet.ray_task import run_class, tell_start

    first = task.output.folder / f"{task.job.pictures.class_name}.first"
    if not first.exists():
        tell_start(task.started)
        first.touch()
        while not (task.output.folder / "go").exists():
            time.sleep(0.05)
    return run_class(task)


def by_value(work: Callable[[Task], Done]) -> Callable[[Task], Done]:
    """The function for workers that have no tests."""
    import sys

    cloudpickle.register_pickle_by_value(sys.modules[work.__module__])
    return work


def kill_both(cluster: RayCluster, out: Path) -> None:
    """Once both classes run: one node with its worker, and the other's worker."""
    until = time.monotonic() + PATIENT_S
    while len(notes := list(out.glob(".patchline-call-*/*.started"))) < 2 or not all(
        note.stat().st_size for note in notes
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    pids = {json.loads(note.read_text())["pid"] for note in notes}
    (on_head,) = pids - set(children(cluster.pid("second")))
    cluster.kill("second")
    os.kill(on_head, signal.SIGKILL)
    (out / "go").touch()


@pytest.mark.slow
def test_a_worker_and_a_node_die(
    cluster: RayCluster, data: Path, alone: Path, tmp_path: Path
) -> None:
    write_good(data / "lids", 4, first_seed=100)
    make_alone(data, "lids", alone)
    out, said = portable_output(output_in(tmp_path)), list[str]()
    jobs = [portable_job(job_of(data, name), "cpu") for name in ("caps", "lids")]
    orders = [Order(job, Task(job, out, (), 1, Path()), needs_of(job, 1, 0)) for job in jobs]
    killer = threading.Thread(target=kill_both, args=(cluster, tmp_path))
    with connected(cluster.address, PATIENT_S) as connection:
        fleet = RayFleet(connection, tmp_path, tell=said.append, work=by_value(waiting_once))
        killer.start()
        ended = list(fleet.make(orders))
        killer.join()
    assert [item.done and item.done.error for item in ended] == [None, None]
    assert len(said) == 2, said
    assert all("made again (1 of 3)" in sentence for sentence in said)
    for name in ("caps", "lids"):
        assert_same(tmp_path, alone, name)
    assert not list(tmp_path.glob(".patchline-call-*"))
