"""A real cluster of two nodes: the same rows as one process, also when a worker or a node dies."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.runtime.archive.on_ray import RayParts, Share, _quiet
from patchline.runtime.archive.run import ArchiveResult
from patchline.runtime.archive.scorer import ScoreJob
from patchline.runtime.cli import score_archive as command
from patchline.runtime.cluster.connect import Cluster, Node, connected
from patchline.runtime.errors import ClusterError, EngineError
from tests.commands import Caller
from tests.ray_cluster import RayCluster, ray_cluster
from tests.runtime.tiny_model import write_tiny_model

from .given import make_job, rows_of, score

pytest.importorskip("ray.data")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of itself

PARTS = 12


def forget_mode() -> None:
    """Ray reads these variables once, when it is imported; another test may have done so."""
    with contextlib.suppress(ImportError):  # older ones have no tokens
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()


@pytest.fixture(scope="module", autouse=True)
def own_token() -> Iterator[None]:
    """A token of these clusters' own, whatever the home folder of who runs the tests holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        forget_mode()
        yield
    forget_mode()


@pytest.fixture(scope="module")
def cluster(own_token: None) -> Iterator[RayCluster]:
    with ray_cluster() as started:
        started.start("head")
        started.start("second")
        yield started


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures for twelve parts of two, one of them unreadable."""
    folder, random = tmp_path_factory.mktemp("archive"), np.random.default_rng(0)
    for number in range(2 * PARTS):
        picture = random.integers(0, 230, (48, 64, 3)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    (folder / "7.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def expected(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows that this process alone makes."""
    out = tmp_path_factory.mktemp("alone") / "out"
    score(make_job(model, images, out, partition_size=2, thumbnails_px=16), images)
    return rows_of(out)


def slow_engine(model: Path, folder: Path, then: Callable[[], object] = lambda: None) -> Any:
    """Opens an engine that takes its time, and says in a file of ``folder`` where it runs."""

    def opened() -> Any:  # all of it is sent to the workers, which have no tests
        import os
        import time

        from patchline.runtime.engine import open_engine

        engine: Any = open_engine(model, threads=1)
        (folder / str(os.getpid())).touch()
        infer = engine.infer

        def slowly(frames: Any) -> Any:
            time.sleep(0.1)
            then()
            return infer(frames)

        engine.infer = slowly
        return engine

    return opened


def score_while(
    job: ScoreJob, images: Path, address: str, disturb: Callable[[], object]
) -> ArchiveResult:
    """Score on the cluster, and do something to it once the first two parts are done."""
    with connected(address) as joined:
        parts, seen = RayParts(joined, Share()), 0

        def disturbed(*arguments: Any) -> Iterator[Any]:
            nonlocal seen
            for result in parts(*arguments):
                seen += 1
                if seen == 2:
                    disturb()
                yield result

        return score(job, images, disturbed)


def test_the_command_scores_on_a_cluster_as_alone(
    cluster: RayCluster,
    model: Path,
    images: Path,
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = ("--model", model, "--images", images, "--out", out, "--thumbnails", 16)
    ray = ("--partition-size", 2, "--ray", cluster.address, "--json")
    finished = Caller(monkeypatch, capsys)(command, *words, *ray)
    assert finished.status == 0, finished.stderr
    assert finished.document["workers"] == 2
    assert finished.document["parts_written"] == PARTS
    assert finished.document["unreadable"] == 1
    assert rows_of(out) == expected
    assert [file.name for file in out.iterdir() if file.name[0] == "."] == [".target.lock"]


def test_a_worker_that_is_killed_costs_nothing_but_time(
    cluster: RayCluster, model: Path, images: Path, expected: Any, tmp_path: Path
) -> None:
    workers, out = tmp_path / "workers", tmp_path / "out"
    workers.mkdir()
    job = make_job(
        model,
        images,
        out,
        partition_size=2,
        thumbnails_px=16,
        open_engine=slow_engine(model, workers),
    )
    killed: list[int] = []

    def kill() -> None:
        killed.append(int(min(workers.iterdir()).name))
        os.kill(killed[0], signal.SIGKILL)

    result = score_while(job, images, cluster.address, kill)
    assert killed
    assert (result.parts_written, result.pictures, result.unreadable) == (PARTS, 2 * PARTS, 1)
    assert rows_of(out) == expected


def test_an_error_of_a_worker_is_told_as_its_own(
    cluster: RayCluster, model: Path, images: Path, tmp_path: Path
) -> None:
    def fail() -> None:
        from patchline.runtime.errors import EngineError

        raise EngineError("no more memory on this GPU")

    job = make_job(
        model,
        images,
        tmp_path / "out",
        partition_size=8,
        open_engine=slow_engine(model, tmp_path, fail),
    )
    with pytest.raises(EngineError, match="no more memory on this GPU"):
        score_while(job, images, cluster.address, lambda: None)


@pytest.mark.slow
def test_a_part_that_kills_its_workers_is_given_up_and_the_others_are_scored(
    cluster: RayCluster, model: Path, images: Path, expected: Any, tmp_path: Path
) -> None:
    workers, out, bad = tmp_path / "workers", tmp_path / "out", images / "3.png"
    workers.mkdir()

    def opened() -> Any:
        import os

        import cv2
        import numpy as np

        from patchline.runtime.engine import open_engine

        engine: Any = open_engine(model, threads=1)
        poison = cv2.resize(cv2.imread(str(bad)), (32, 32), interpolation=cv2.INTER_AREA)
        infer = engine.infer

        def crashing(frames: Any) -> Any:
            if any(np.array_equal(frame, poison) for frame in frames):
                os._exit(1)
            return infer(frames)

        engine.infer = crashing
        return engine

    job = make_job(model, images, out, partition_size=2, thumbnails_px=16, open_engine=opened)
    with pytest.raises(ClusterError, match="part 1 is given up: 5 workers died"):
        score_while(job, images, cluster.address, lambda: None)
    assert rows_of(out) == [*expected[:2], *expected[4:]]


@pytest.mark.slow
def test_a_node_that_dies_costs_nothing_but_time(
    model: Path, images: Path, expected: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = make_job(
        model,
        images,
        out,
        partition_size=2,
        thumbnails_px=16,
        open_engine=slow_engine(model, tmp_path),
    )
    with ray_cluster() as own:
        own.start("head")
        own.start("second")
        result = score_while(job, images, own.address, lambda: own.kill("second"))
    assert (result.parts_written, result.pictures) == (PARTS, 2 * PARTS)
    assert rows_of(out) == expected


def test_only_rays_console_is_silenced() -> None:
    from ray.data import DataContext
    from ray.data._internal.logging import configure_logging

    logger, own = logging.getLogger("ray.data"), logging.StreamHandler()
    configure_logging()
    logger.addHandler(own)
    try:
        _quiet(DataContext())
        levels = {type(handler).__name__: handler.level for handler in logger.handlers}
        assert levels["PlainRayHandler"] > logging.CRITICAL
        assert levels["SessionFileHandler"] == levels["StreamHandler"] == logging.NOTSET
    finally:
        logger.removeHandler(own)


class Nodes(Cluster):
    """A cluster that is nothing but its nodes."""

    def nodes(self) -> tuple[Node, ...]:
        return tuple(
            Node(str(at), f"10.0.0.{at}", "host", cpus, gpus, 0.0)
            for at, (cpus, gpus) in enumerate(((8.0, 1.0), (3.0, 0.0)), 1)
        )


@pytest.mark.parametrize(
    ("share", "room"),
    [
        (Share(), 11),
        (Share(workers=4), 4),
        (Share(cpus=3), 3),
        (Share(gpus=0.5), 2),
        (Share(gpus=0.1), 10 - 2),
        (Share(cpus=4, gpus=0.5), 2),
    ],
)
def test_engines_are_as_many_as_the_nodes_have_room_for(share: Share, room: int) -> None:
    assert share.room(Nodes(None, "local")) == room


@pytest.mark.parametrize("share", [Share(cpus=9), Share(gpus=2.0), Share(workers=1, cpus=9)])
def test_no_room_is_an_error_that_says_what_there_is(share: Share) -> None:
    with pytest.raises(ClusterError, match=r"has room .*\(10\.0\.0\.1 8 CPUs, 1 GPUs; 10\.0\.0\.2"):
        share.room(Nodes(None, "local"))
