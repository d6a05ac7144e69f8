"""Benchmarks of the pruned search at a tiny size, and the crossover they report."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchline.benchmarks.search import crossover
from patchline.export.demo.pictures import write_demo_data
from tests.benchmarks.smoke import smoke


def test_smoke_search(tmp_path: Path) -> None:
    sizes = ("--bank-rows", 320, "--bank-rows", 64, "--image-size", 64, "--rounds", 2)
    results = smoke("search", tmp_path, *sizes)
    assert [bank["bank_rows"] for bank in results["banks"]] == [64, 320]
    for bank in results["banks"]:
        assert set(bank["graphs"]) == {"exact", "pruned"}
        assert bank["pruned_over_exact"]["median"] > 0
        assert bank["file_bytes"]["pruned"] > bank["file_bytes"]["exact"]
    assert results["crossover_rows"]


def test_smoke_search_agreement(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", good=12, test_good=4, test_defective=4, size=(96, 96))
    sizes = ("--weights", "random", "--image-size", 64, "--ratio", 0.3)
    plans = ("--plan", "60:32", "--plan", "1:9")
    results = smoke(
        "search_agreement", tmp_path / "out", "--data", tmp_path / "data", *sizes, *plans
    )
    (case,) = results["cases"]
    good, poor = case["pruned"]
    assert good["leading_coordinates"] == 60
    assert good["good_pictures_without_own_rows"]["nearest"] > 0.99
    assert poor["good_pictures_without_own_rows"]["all"] < 0.9
    assert 0 <= good["largest_score_change_relative"] < poor["largest_score_change_relative"]
    assert good["verdicts_changed"] == 0
    assert good["image_auroc"] == pytest.approx(case["exact"]["image_auroc"], abs=0.01)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.9, 0.8, 0.5], "below 100"),
        ([1.2, 1.1, 1.0], "above 10000"),
        ([1.1, 0.9, 0.5], 316),
        ([0.9, 1.1, 0.9], 3162),  # noise at the small end: the last time it was behind counts
        ([1.3, 1.2, 0.8], 3162),
    ],
)
def test_crossover(ratios: list[float], expected: int | str) -> None:
    assert crossover([100, 1000, 10000], ratios) == expected
