"""Every benchmark runs at a tiny size and writes strict JSON; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patchline.benchmarks import report
from patchline.benchmarks.coreset import naive_by_differences, naive_by_product
from patchline.export.coreset import greedy_coreset
from patchline.export.demo.pictures import write_demo_data


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"patchline.benchmarks.{module}", *arguments], check=True)


def _only_result(folder: Path) -> dict[str, object]:
    (path,) = folder.rglob("*.json")
    document: dict[str, object] = json.loads(
        path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON")
    )
    return document


def test_coreset_writes_medians_and_ratios(tmp_path: Path) -> None:
    _run("coreset", "--rows", "3000", "--rounds", "1", "--out", str(tmp_path))
    results = _only_result(tmp_path)["results"]
    assert isinstance(results, dict)
    assert results["picks"] == 30
    assert set(results["methods"]) == {"rounds", "naive, matrix-vector", "naive, differences"}
    assert results["same_picks_as_naive_by_differences"] == "all 30"


def test_latency_writes_both_graphs(tmp_path: Path) -> None:
    _run(
        "latency",
        "--bank-rows",
        "64",
        "--image-size",
        "64",
        "--rounds",
        "3",
        "--out",
        str(tmp_path),
    )
    results = _only_result(tmp_path)["results"]
    assert isinstance(results, dict)
    assert set(results["graphs"]) == {"model", "backbone"}
    assert results["graphs"]["model"]["runs"] == 3


def test_accuracy_on_drawn_pictures(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", good=6, test_good=2, test_defective=4, size=(128, 128))
    tiny = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")
    _run("accuracy", "--data", str(tmp_path / "data"), *tiny, "--out", str(tmp_path / "out"))
    results = _only_result(tmp_path / "out")["results"]
    assert isinstance(results, dict)
    gasket = results["classes"]["gasket"]
    assert 0 <= gasket["image_auroc"] <= 1
    assert (gasket["good"], gasket["defective"]) == (2, 4)


def test_startup_measures_commands_and_imports(tmp_path: Path) -> None:
    _run("startup", "--rounds", "1", "--out", str(tmp_path))
    results = _only_result(tmp_path)["results"]
    assert isinstance(results, dict)
    assert "run-camera --help" in results


def test_the_naive_loops_that_are_measured_pick_what_the_coreset_picks() -> None:
    rows = torch.randn(500, 16, generator=torch.Generator().manual_seed(1))
    picks = greedy_coreset(rows, 50, seed=0).indices.tolist()
    assert naive_by_differences(rows, 50) == picks
    assert naive_by_product(rows, 50) == picks


def test_alternation_and_summary() -> None:
    order: list[str] = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times_ms = report.alternate(runs, rounds=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in times_ms.values()] == [3, 3]
    assert report.summarize([3.0, 1.0, 2.0])["median_ms"] == 2.0
    assert report.summarize([5.0])["q1_ms"] == 5.0


def test_committed_results_are_strict_json_with_a_machine() -> None:
    root = Path(__file__).parents[2]
    for path in (root / report.RESULTS).rglob("*.json"):
        document = json.loads(path.read_text(), parse_constant=pytest.fail)
        assert {"suite", "date", "machine", "results"} <= document.keys()
        assert document["machine"]["cpu"]
