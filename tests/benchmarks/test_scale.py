"""The scale benchmark, tiny, and what it makes of times that are known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from patchline.benchmarks import scale
from patchline.benchmarks.charts.drawings import DRAWINGS
from patchline.benchmarks.charts.read import Results
from patchline.benchmarks.charts.workers import draw_workers
from patchline.benchmarks.scale_calculation import WORKERS, Inputs, calculation, inputs_of
from patchline.benchmarks.scale_calls import Timed, check_same, step_of
from patchline.benchmarks.scale_cluster import environment, kill_with_children, on_cores
from patchline.benchmarks.scale_results import Measured, report, spread
from patchline.runtime.errors import ConfigurationError, DataError
from tests.benchmarks.smoke import smoke


@pytest.mark.slow  # two fits, two archives, two clusters and their imports
@pytest.mark.parametrize("has_token_file", [False, True])
def test_smoke_scale(tmp_path: Path, has_token_file: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # also runs: scale_overhead
    pytest.importorskip("ray.data")
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    if has_token_file:
        (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("HOME", str(home))
    sizes = ("--classes", 2, "--pictures", 8, "--archive", 40, "--partition-size", 10)
    tiny = ("--image-size", 64, "--coreset-ratio", 0.2, "--empty-tasks", 12)
    results = smoke("scale", tmp_path / "out", *sizes, *tiny, "--workers", 1, "--rounds", 1)
    assert results["cluster_start_ms"]["1"]["runs"] == 1
    for part, tasks in (("export", 2), ("archive", 4)):
        assert results[part].keys() == {"0", "1"}
        for way in results[part].values():
            assert way["tasks"] == tasks
            assert 0 < way["start_ms"]["median_ms"] < way["call_ms"]["median_ms"]
        calculated = results["calculation"][part]
        assert calculated["label"].startswith("calculated, not measured")
        assert calculated["held_against_calls_that_ran"] == []
    assert results["export"]["0"]["classes_per_minute"]["median"] > 0
    assert results["archive"]["1"]["pictures_per_second"]["median"] > 0
    assert {name: time["runs"] for name, time in results["empty_task_ms"].items()} == dict.fromkeys(
        ("ray_task", "class_on_ray", "class_without_ray", "part_on_ray", "part_without_ray"), 1
    )


def called(whole_s: float, tasks: int, step_s: float) -> Timed:
    return Timed(whole_s, tasks, step_s, {"scores": "a"})


def measured() -> Measured:
    """Two rounds: 5 s of start and 2 s a class alone; with Ray 1 s and 0.1 s more."""
    overhead = {
        "ray_task_ms": 1.0,
        "class_on_ray_ms": 10.0,
        "class_without_ray_ms": 0.5,
        "part_on_ray_ms": 12.0,
        "part_without_ray_ms": 2.0,
    }
    return Measured(
        classes={
            0: [called(5 + 8, 4, 2.0)] * 2,
            1: [called(6 + 8.4, 4, 2.1)] * 2,
            2: [called(6 + 4.2, 4, 2.1)] * 2,
        },
        archive={
            0: [called(2 + 10, 20, 0.5)] * 2,
            1: [called(4 + 12, 20, 0.6)] * 2,
            2: [called(4 + 6, 20, 0.6)] * 2,
        },
        cluster_s={1: [5.0, 6.0], 2: [5.5, 5.5]},
        overheads=[overhead, overhead],
    )


def test_known_times_give_known_rates() -> None:
    found = report(measured(), 100.0, 100)
    export, archive = found["export"], found["archive"]
    assert export["0"]["classes_per_minute"]["median"] == pytest.approx(30)
    assert export["2"]["classes_per_minute"]["median"] == pytest.approx(60 * 2 / 2.1, abs=1e-3)
    assert export["2"]["start_ms"]["median_ms"] == pytest.approx(6000)
    assert export["1"]["rate_over_no_ray"]["median"] == pytest.approx(2 / 2.1, abs=1e-4)
    assert export["2"]["rate_over_no_ray"]["median"] == pytest.approx(4 / 2.1, abs=1e-4)
    assert export["2"]["call_speedup_over_no_ray"]["median"] == pytest.approx(13 / 10.2, abs=1e-4)
    assert export["1"]["step_longer_than_without_ray_ms"]["median"] == pytest.approx(100)
    assert archive["1"]["pictures_per_second"]["median"] == pytest.approx(100 / 0.6, abs=1e-3)
    assert found["cluster_start_ms"]["1"]["median_ms"] == 5500
    inputs = found["calculation"]["archive"]["inputs"]
    assert inputs == {"start_s": 4.0, "driver_s": 0.01, "task_s": 0.59, "tasks": 10_000}
    (held,) = found["calculation"]["archive"]["held_against_calls_that_ran"]
    assert held["workers"] == 2
    assert held["calculated_s"] == pytest.approx(4 + 20 * 0.01 + 10 * 0.59)
    assert held["measured_over_calculated"] == pytest.approx(10 / 10.1, abs=1e-4)


def test_a_step_counts_from_when_each_worker_has_had_one() -> None:
    assert step_of([5.0, 7.0, 9.0], 1) == pytest.approx(2.0)
    assert step_of([5.0, 5.0, 7.0, 7.0], 2) == pytest.approx(2.0)  # together
    assert step_of([5.0, 6.0, 7.0, 8.0], 2) == pytest.approx(2.0)  # one behind the other
    with pytest.raises(DataError, match="2 tasks are too few for 2 workers"):
        step_of([5.0, 6.0], 2)


def test_the_calculation_is_its_formula() -> None:
    inputs = inputs_of(start_s=10.0, step_s=2.0, driver_s=0.5)
    assert inputs == Inputs(10.0, 0.5, 1.5)
    assert inputs.call_s(tasks=7, workers=1) == pytest.approx(10 + 7 * 2)
    assert inputs.call_s(tasks=7, workers=2) == pytest.approx(10 + 3.5 + 4 * 1.5)
    assert inputs_of(10.0, 0.1, 0.5).task_s == 0
    found = calculation(inputs, 128, 1, "classes_per_minute", [])
    assert [row["workers"] for row in found["workers"]] == list(WORKERS)
    assert found["workers"][0]["speedup_over_one"] == 1
    speedups = [row["speedup_over_one"] for row in found["workers"]]
    assert speedups == sorted(speedups)
    assert speedups[-1] < (10 + 128 * 2) / (10 + 128 * 0.5)  # the driver's share is the limit
    assert found["workers"][0]["classes_per_minute"] == pytest.approx(60 * 128 / 266, abs=0.01)
    assert len(found["left_out"]) == 3


def test_the_chart_says_what_is_calculated(tmp_path: Path) -> None:
    settings = {
        "backbone": "resnet18",
        "image_size_px": 128,
        "rounds": 2,
        "pictures_of_a_part": 100,
    }
    machine = {"cpu": "Test CPU", "cores": 2}
    document: dict[str, Any] = {"machine": machine, "date": "2026-01-02T03:04:05+00:00"}
    document["results"] = settings | report(measured(), 100.0, 100)
    for folder in ("a", "b"):
        found = Results("scale", "test-cpu-2-cores", document)
        assert DRAWINGS["scale"] is draw_workers
        (path,) = draw_workers(found, tmp_path / folder, [])
        assert path.name == "scale-workers--test-cpu-2-cores.svg"
    assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()
    assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_results_that_differ_are_refused() -> None:
    check_same({"scores": "a"}, {"scores": "a"}, "1 workers")
    for other in ({"scores": "b"}, {}, {"scores": "a", "the bank part-0": "c"}):
        with pytest.raises(DataError, match=r"(scores|the bank part-0) of 1 workers are not those"):
            check_same({"scores": "a"}, other, "1 workers")


def test_a_call_that_differs_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter(("a", "a", "a", "b"))

    def give(*given: object) -> Timed:
        return Timed(2.0, 2, 1.0, {"scores": next(digests)})

    monkeypatch.setattr(scale.Options, "export", give)
    monkeypatch.setattr(scale.Options, "score", give)
    options, found = scale.Options((), Path(), (), 1, {}), Measured()
    scale._call(options, 0, (), found)
    with pytest.raises(DataError, match="scores of 1 workers are not those of the first call"):
        scale._call(options, 1, ("--ray", "x"), found)
    assert {way: len(calls) for way, calls in found.classes.items()} == {0: 1, 1: 1}


def test_what_could_not_be_counted_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ConfigurationError, match="1 classes and 9 parts are too few for 1"):
        scale._check(1, 1, 9)
    many = 1 + len(os.sched_getaffinity(0))
    with pytest.raises(ConfigurationError, match=f"{many} workers need as many cores"):
        scale._check(many, 100, 100)


def test_cores_are_given_and_given_back() -> None:
    before = os.sched_getaffinity(0)
    with on_cores(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_the_token_is_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of somebody")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    first, second = environment(), environment()
    assert first["RAY_AUTH_MODE"] == "token"
    assert len({first["RAY_AUTH_TOKEN"], second["RAY_AUTH_TOKEN"], "of somebody"}) == 3
    assert first["RAY_ADDRESS"] == ""


def test_a_process_is_killed_with_all_below_it() -> None:
    code = "import subprocess; subprocess.run(['sleep', '600'])"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()):
        time.sleep(0.01)
    kill_with_children(process)
    assert process.returncode == -9
    deadline = time.monotonic() + 30  # a signal takes effect when the process is next scheduled
    while not is_over(int(children)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_over(number: int) -> bool:
    """Whether a process is gone, or waits for nothing but to be reaped."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


def test_spread_of_one_and_of_many() -> None:
    assert spread([3.0]) == {"median": 3.0, "q1": 3.0, "q3": 3.0}
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3.0, "q1": 1.5, "q3": 4.5}
