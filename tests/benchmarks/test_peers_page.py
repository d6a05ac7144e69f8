"""The peers' page: every part's table, from files as the benchmark writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patchline.benchmarks import report
from patchline.benchmarks.peers.page import PARTS, page, page_path, write_page
from patchline.runtime.errors import DataError

RATIO = {"patchline_over_peer": {"median": 0.504, "q1": 0.4, "q3": 0.6}}
BANK = {"backbone": "wide_resnet50_2", "bank_rows": 20480, "model_mib": 13.75}
FIT = {"class_name": "bottle", "coreset_ratio": 0.01}
FAILED = [{"peer": "torch", "bank_rows": 102400, "reason": "no room"}]


def rows(part: str) -> list[dict[str, Any]]:
    """As the benchmark's parts give them: Patchline's, and another's."""
    own: dict[str, dict[str, Any]] = {
        "latency": {**BANK, "median_ms": 254.321},
        "memory": {**BANK, "peak_mib": 100.0},
        "install": {"median_ms": 486.4, "installed_mib": 349.3, "without_cuda_mib": 349.3},
        "coreset": {
            "rows": 214016, "picks": 21401, "median_s": 1.25,
            "extrapolated": False, "picks_measured": 21401,
        },
        "fit": {**FIT, "median_s": 12.34, "peak_mib": 1234.5},
        "accuracy": {**FIT, "image_auroc": 1.0, "pixel_auroc": 0.98194, "aupro": 0.92729},
    }  # fmt: skip
    other: dict[str, dict[str, Any]] = {
        "latency": {**own["latency"], "median_ms": 508.0, **RATIO},
        "memory": {**own["memory"], "peak_mib": 250.0},
        "install": {"median_ms": 8337.7, **RATIO},
        "coreset": {**own["coreset"], **RATIO, "extrapolated": True, "picks_measured": 500},
    }
    return [{"peer": "patchline", **own[part]}, {"peer": "torch", **other.get(part, own[part])}]


def written(folder: Path, *parts: str) -> tuple[Path, str]:
    """Results of these parts: their folder and the machine."""
    for part in parts:
        document = {"rows": rows(part), "failed": FAILED if part == "latency" else []}
        path = report.write_result(f"peers-{part}", document, folder)
    return path.parent, path.stem.partition("--")[2]


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("latency", [
            "|  | WideResNet-50, 20,480 rows |", "| patchline | 254.3 ms |",
            "| torch | 508.0 ms (0.50 \N{MULTIPLICATION SIGN}) |",
            "Not measured: torch, 102400: no room",
        ]),
        ("memory", ["| torch | 250 MiB (0.40 \N{MULTIPLICATION SIGN}) | 13.8 MiB |"]),
        ("install", [
            "| patchline | 486 ms | 349 MiB | 349 MiB |",
            "| torch | 8338 ms (0.50 \N{MULTIPLICATION SIGN}) |  |  |",
        ]),
        ("coreset", [
            "|  | 21,401 of 214,016 rows |", "| patchline | 1.2 s |",
            "| torch | 1.2 s (0.50 \N{MULTIPLICATION SIGN}); 500 picks measured |",
        ]),
        ("fit", [
            "|  | bottle, 1 %: time | bottle, 1 %: peak memory |", "| torch | 12.3 s | 1,234 MiB |",
        ]),
        ("accuracy", ["| patchline | 1.0000, 0.9819, 0.9273 |"]),
    ],
)  # fmt: skip
def test_each_part_is_a_table(tmp_path: Path, part: str, lines: list[str]) -> None:
    found = page(*written(tmp_path, part)).split("\n")
    assert [line for line in lines if line not in found] == []


def test_a_time_of_another_precision_says_so(tmp_path: Path) -> None:
    row = {"peer": "patchline", **BANK, "median_ms": 10.0}
    others = [{**row, "peer": "a", "precision": "float32"}, {**row, "precision": "bfloat16"}]
    others[1]["peer"] = "b"
    path = report.write_result("peers-latency", {"rows": [row, *others], "failed": []}, tmp_path)
    found = page(path.parent, path.stem.partition("--")[2])
    assert "| a | 10.0 ms |" in found and "| b | 10.0 ms, bfloat16 |" in found


def test_all_parts_are_one_page_and_losses_stay(tmp_path: Path) -> None:
    folder, machine = written(tmp_path, *PARTS)
    path = write_page(folder, machine)
    assert path == page_path(folder, machine)
    text = path.read_text()
    places = [text.index(f"## {title}") for title, _, _ in PARTS.values()]
    assert places == sorted(places)
    for part in PARTS:
        assert f"(peers-{part}--{machine}.json)" in text


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no peers-"):
        page(tmp_path, "nowhere")
