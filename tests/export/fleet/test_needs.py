"""What a class takes of a node, where it may compute, and what only one process can give."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from patchline.export.cli import export_model as command
from patchline.export.cli.export_options import RayOptions, ray_options
from patchline.export.fleet.needs import PROCESS_BYTES, Needs, misfit, needs_of
from patchline.export.fleet.portable import device_on_ray, portable_job, portable_output
from patchline.runtime.cluster.connect import Node
from patchline.runtime.errors import ConfigurationError
from tests.commands import Call

from ..drawn import CLASS_NAME
from .jobs import job_of, output_in

SMALL = Node("1", "10.0.0.1", "one", 2, 0, 4 << 30)
LARGE = Node("2", "10.0.0.2", "two", 8, 1, 8 << 30)


def test_more_pictures_and_larger_frames_take_more(drawn_data: Path) -> None:
    job = job_of(drawn_data, CLASS_NAME)
    needs = needs_of(job, 2, 0.5)
    assert (needs.cpus, needs.gpus) == (2, 0.5)
    assert PROCESS_BYTES < needs.memory_bytes < 2 * PROCESS_BYTES
    large = job_of(drawn_data, CLASS_NAME, image_size=(256, 256))
    assert needs_of(large, 2, 0).memory_bytes > needs.memory_bytes
    trained = job_of(drawn_data, CLASS_NAME, method="reverse-distillation")
    assert needs_of(trained, 2, 0).memory_bytes > PROCESS_BYTES


def test_a_budget_that_is_too_small_is_said_before_it_is_sent(drawn_data: Path) -> None:
    job = job_of(drawn_data, CLASS_NAME, image_size=(512, 512), memory_budget_bytes=1 << 20)
    with pytest.raises(ConfigurationError, match="Raise --memory-budget"):
        needs_of(job, 1, 0)


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        (Needs(8, 1, 8 << 30), True),
        (Needs(9, 0, 1), False),
        (Needs(1, 2, 1), False),
        (Needs(1, 0, 9 << 30), False),
    ],
)
def test_what_no_node_can_hold(needs: Needs, fits: bool) -> None:
    found = misfit(needs, [SMALL, LARGE])
    assert (found is None) == fits
    if found:
        assert "10.0.0.2 has 8 CPU threads, 1 GPUs and 8.0 GiB" in found


@pytest.mark.parametrize(
    ("device", "gpus", "found"),
    [
        ("auto", None, ("cpu", 0.0)),
        ("cuda", None, ("cuda", 1.0)),
        ("auto", 0.25, ("cuda", 0.25)),
        ("cpu", 0.0, ("cpu", 0.0)),
    ],
)
def test_where_a_class_computes(device: str, gpus: float | None, found: tuple[str, float]) -> None:
    assert device_on_ray(device, gpus) == found


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0.0), ("cpu", 1.0)])
def test_a_device_without_its_gpu(device: str, gpus: float) -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        device_on_ray(device, gpus)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((None, 2, None), "--ray-cpus would do nothing without a cluster"),
        ((None, 2, 0.5), "--ray-cpus, --ray-gpus would do nothing"),
        (("auto", 0, None), "expected 1 or more CPU threads"),
        (("auto", None, -1.0), "expected a share"),
        (("auto", None, 1.5), "expected a share"),
        (("auto", None, float("nan")), "expected a share"),
    ],
)
def test_shares_that_cannot_be(given: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        ray_options(*given)


def test_options_of_a_cluster() -> None:
    assert ray_options(None, None, None) is None
    assert ray_options("auto", None, None) == RayOptions("auto", 1, None)
    assert ray_options("h:1", 4, 2.0) == RayOptions("h:1", 4, 2.0)


def test_paths_are_whole_on_other_machines(
    drawn_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn_data)
    job = job_of(Path(), CLASS_NAME, weights="w.pth", device="auto")
    there = portable_job(job, "cpu")
    assert all(path.is_absolute() for path in (there.pictures.folder, *there.pictures.paths))
    assert there.settings.weights == str(drawn_data / "w.pth")
    assert there.settings.device == "cpu"
    assert portable_job(job_of(Path(), CLASS_NAME), "cpu").settings.weights == "random"
    assert portable_output(output_in(Path("m"))).folder == drawn_data / "m"


def test_what_only_one_process_can_show() -> None:
    output = output_in(Path("m"), sensitivity=Path("c.svg"), track=cast(Any, object()))
    with pytest.raises(ConfigurationError, match="--track and --sensitivity would show"):
        portable_output(output)


@pytest.mark.parametrize(("option", "value"), [("--ray-cpus", "2"), ("--ray-gpus", "0")])
def test_shares_without_a_cluster_are_refused_by_the_command(
    option: str, value: str, call: Call, tmp_path: Path
) -> None:
    words = ("--cls", "caps", "--out", tmp_path, option, value)
    refused = call(command, *words)
    assert (refused.status, f"{option} would do nothing" in refused.stderr) == (1, True)
    served = call(command, *words, "--serve", "triton", "--only-serve")
    name = option.removeprefix("--").replace("-", "_")
    assert (served.status, f"{name} would not be used" in served.stderr) == (1, True)
