"""Charts are drawn from results files alone, whole, and the same to the byte each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from patchline.benchmarks.charts import curves, read, style
from patchline.benchmarks.charts.__main__ import draw_charts
from patchline.benchmarks.charts.curves import draw_curves, law_function, law_text, time_curve
from patchline.benchmarks.charts.distribution import draw_distribution
from patchline.benchmarks.scaling.collect import Collected, Series, report
from patchline.benchmarks.scaling.laws import choose_law
from patchline.benchmarks.scaling.suites import SIZES, SUITES, Options
from patchline.runtime.errors import DataError
from tests.programs import run_program

MACHINE = {"cpu": "Test CPU", "cores": 2, "packages": {"patchline": "9.9.9"}}

Law = Callable[[int], float]


def series_of(suite: str, monkeypatch: pytest.MonkeyPatch) -> list[Series]:
    """The suite's own series; no model is made for them."""
    monkeypatch.setattr("patchline.benchmarks.scaling.suites.make_model", lambda path, **_: path)
    options = Options("resnet18", ("exact",), 256, 2048, 1.0, 0, 8, 0.01, 1024, Path("nowhere"))
    return SUITES[suite](options, SIZES[suite], lambda line: None)


TIMES_MS: dict[str, Law] = {
    "frame": lambda size: 20 + 0.009 * size if size > 600 else 4 + 3.6e-4 * size**2,
    "search": lambda size: 0.0088 * size,
    "batch": lambda size: 3 + 28 * size,
    "features": lambda size: 0.18 * size,
    "coreset": lambda size: 0.9 * size if size < 800 else 0.0011 * size**2,
    "cross-fit": lambda size: 4 * size + 0.0013 * size**2,
    "threshold": lambda size: 40.0,
    "bank": lambda size: 2.2e-4 * size**2,
    "fit": lambda size: 45 + 4.2 * size + 0.0016 * size**2,
}

QUANTITIES = {
    "frame (exact)": ["frame"],
    "search (exact)": ["search"],
    "batch (exact)": ["batch"],
    "features in memory": ["features"],
    "features on disk": ["features"],
    "coreset at a fixed ratio": ["coreset"],
    "coreset of fixed rows": ["coreset"],
    "fit within the memory budget": ["features", "cross-fit", "threshold", "bank", "fit"],
}


def visits_of(series: Series) -> Collected:
    """Two visits to each point, a little apart."""
    found = Collected()
    for index, size in enumerate(series.sizes):
        on_disk = "disk" in series.name or ("budget" in series.name and size == 10_000)
        peak = 300 + (0.02 if on_disk else 0.006) * size
        factor = 1.7 if on_disk else 1.0
        facts = {"on_disk": 1} if on_disk else {}
        for shift in (0.98, 1.02 + 0.005 * (index % 3)):
            times = {
                name: [factor * shift * TIMES_MS[name](size) for _ in range(3)]
                for name in QUANTITIES[series.name]
            }
            memory = {"baseline": 80.0, "resident": 0.9 * peak, "peak": shift * peak}
            found.visits.setdefault(size, []).append(
                {"times_ms": times, "memory_mib": memory, "facts": facts}
            )
    return found


SETTINGS: dict[str, Any] = {
    "backbone": "resnet18",
    "image_size_px": 256,
    "bank_rows": 2048,
    "engine": "ONNX Runtime 1.32.0, CPUExecutionProvider",
    "rounds": 2,
    "patches_per_image": 64,
    "dimension": 384,
    "coreset_ratio": 0.01,
    "fixed_rows": 2048,
    "memory_budget_mib": 1024,
}


def latency_samples() -> dict[str, list[float]]:
    generator = np.random.default_rng(0)
    backbone = 19 + generator.gamma(2, 0.3, 200)
    model = backbone + 12 + generator.gamma(2, 0.2, 200)
    model[3] = 90.0
    return {"model": model.round(3).tolist(), "backbone": backbone.round(3).tolist()}


def write_results(folder: Path, suite: str, results: dict[str, Any]) -> None:
    document = {"suite": suite, "date": "2026-01-02T03:04:05+00:00", "machine": MACHINE}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}--test-cpu-2-cores.json"
    path.write_text(json.dumps(document | {"results": results}, allow_nan=False))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of every suite that has a chart, and of peers."""
    folder = tmp_path / "9.9.9"
    for suite in SUITES:
        reports = [report(series, visits_of(series)) for series in series_of(suite, monkeypatch)]
        write_results(folder, f"scaling-{suite}", SETTINGS | {"series": reports})
    write_results(folder, "latency-resnet18-2048", SETTINGS | {"samples_ms": latency_samples()})
    rows = [
        {"peer": peer, "backbone": "resnet18", "bank_rows": rows, "median_ms": factor * rows / 50}
        for peer, factor in (("anomalib-onnxruntime", 2.0), ("patchline", 0.9))
        for rows in (2048, 20_480, 102_400)
    ]
    write_results(folder, "peers-latency", {"rows": rows})
    return tmp_path


def draw(results: Path, **environment: str) -> str:
    command = [sys.executable, "-m", "patchline.benchmarks.charts", "--version", "9.9.9"]
    return run_program(
        [*command, "--results", str(results)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ).stdout


NAMES = {
    "latency-distribution-resnet18-2048--test-cpu-2-cores.svg",
    "scaling-bank-latency--test-cpu-2-cores.svg",
    "scaling-bank-memory--test-cpu-2-cores.svg",
    "scaling-image--test-cpu-2-cores.svg",
    "scaling-batch--test-cpu-2-cores.svg",
    "scaling-fit-time--test-cpu-2-cores.svg",
    "scaling-fit-memory--test-cpu-2-cores.svg",
}


def test_smoke_charts(results: Path) -> None:
    """Every chart, twice: the same bytes, whatever the hash seed and the day."""
    folder = results / "9.9.9" / "charts"
    printed = draw(results, PYTHONHASHSEED="1").split()
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert first.keys() == NAMES == {Path(line).name for line in printed}
    draw(results, PYTHONHASHSEED="2", SOURCE_DATE_EPOCH="0")
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    for content in first.values():
        root = ElementTree.fromstring(content)
        assert root.tag.endswith("svg")
        assert b"<dc:date>" not in content
        assert str(results).encode() not in content


def test_results_without_a_chart_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="no results in"):
        draw_charts(tmp_path, "9.9.9")
    write_results(tmp_path / "9.9.9", "startup", {"a": {}})
    with pytest.raises(DataError, match="none of the 1 results"):
        draw_charts(tmp_path, "9.9.9")
    # As the files that are older than the samples.
    write_results(tmp_path / "9.9.9", "latency-resnet18-2048", SETTINGS)
    with pytest.raises(DataError, match="none of the 2 results"):
        draw_charts(tmp_path, "9.9.9")
    assert "no samples in this file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"results": {}}'])
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "latency--m.json").write_text(text)
    with pytest.raises(DataError, match=r"latency--m\.json .*Measure it again"):
        read.read_results(tmp_path)


def test_peers_are_read_with_care(tmp_path: Path) -> None:
    sound = {"peer": "a$b", "backbone": "ResNet-18", "bank_rows": 20_480, "median_ms": 3.0}
    rows = [
        sound,
        sound | {"bank_rows": 2048, "median_ms": 1},
        sound | {"backbone": "wide_resnet50_2"},
        sound | {"median_ms": "failed"},
        sound | {"median_ms": True},
        sound | {"bank_rows": None},
        {"peer": "c", "reason": "did not install"},
        "nothing",
    ]
    write_results(tmp_path, "peers-latency", {"rows": rows})
    write_results(tmp_path, "peers-memory", {"rows": "none"})
    write_results(tmp_path, "scaling-bank", SETTINGS)
    everything = read.read_results(tmp_path)
    like = next(found for found in everything if found.suite == "scaling-bank")
    found = read.peer_points(everything, like, "peers-latency", "median_ms")
    assert found == {"ab": [(2048.0, 1.0), (20_480.0, 3.0)]}
    assert read.peer_points(everything, like, "peers-memory", "peak_mib") == {}
    other = read.Results(like.suite, "another-machine", like.document)
    assert read.peer_points(everything, other, "peers-latency", "median_ms") == {}


def law_of(chosen: str, *, unit: str = "ms") -> Any:
    sizes = [100, 1000, 10_000]
    values = [3 + 0.02 * size for size in sizes] if chosen == "affine" else [1e-5, 1e-3, 1e-1]
    wobble = [1.001, 0.999, 1.0]
    values = [value * factor for value, factor in zip(values, wobble, strict=True)]
    law = choose_law(sizes, values, expectation(1 if chosen == "affine" else 2), unit)
    assert law["chosen"] == chosen
    return law


def expectation(exponent: float) -> Any:
    from patchline.benchmarks.scaling.laws import Expected

    return Expected("a + b * rows" if exponent == 1 else "b * images ** 2", exponent, "Because.")


def series_with(law: Any, quantity: str, axis: str) -> dict[str, Any]:
    times = {"median_ms": 2.0, "q1_ms": 1.9, "q3_ms": 2.2}
    points = [{axis: size, "times": {quantity: times}, "facts": {}} for size in (100, 1000)]
    return {"name": "x", "axis": axis, "points": points, "laws": {quantity: law}}


def test_a_law_is_drawn_as_it_was_fitted() -> None:
    law = law_of("affine")
    curve = time_curve(series_with(law, "frame", "bank_rows"), "frame")
    assert curve.law is not None
    affine = law["affine"]
    assert law_function(curve.law)(500) == pytest.approx(
        affine["constant_ms"] + affine["slope_ms"] * 500
    )
    assert re.fullmatch(
        r"3(\.\d+)? ms \+ (20|19\.9\d|20\.0\d?) ms per 1,000 rows "
        r"\(expected ∝ rows and a constant\)",
        law_text(curve),
    )


def test_a_power_law_in_seconds_keeps_its_exponent() -> None:
    law = law_of("power")
    curve = time_curve(series_with(law, "coreset", "images"), "coreset", unit="s")
    assert curve.law is not None
    assert curve.values == [0.002, 0.002]
    power = law["power"]
    expected = 1e-3 * power["coefficient_ms"] * 500 ** power["exponent"]
    assert law_function(curve.law)(500) == pytest.approx(expected)
    assert re.fullmatch(
        r"∝ images², 95 % \d\.\d\d to \d\.\d\d \(expected ∝ images²\)", law_text(curve)
    )


def test_a_curve_without_a_law_is_drawn_too() -> None:
    series = series_with(None, "frame", "bank_rows")
    curve = time_curve(series, "frame")
    axes = Figure().subplots()
    draw_curves(axes, [curve], is_log=True)
    assert axes.get_legend_handles_labels()[1] == ["x"]
    with pytest.raises(ValueError, match="no law"):
        law_text(curve)


def test_every_axis_has_a_name_and_a_unit_for_its_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in SUITES:
        for series in series_of(suite, monkeypatch):
            assert series.axis in curves.AXES
            for expected in series.laws.values():
                assert (series.axis, round(expected.exponent)) in curves._UNITS


def test_the_distribution_is_that_of_the_samples() -> None:
    samples = latency_samples()
    axes = Figure().subplots()
    draw_distribution(axes, samples)
    labels = axes.get_legend_handles_labels()[1]
    model = np.array(samples["model"])
    median, p99 = np.median(model), np.percentile(model, 99, method="inverted_cdf")
    assert f"median {median:.1f} ms, p99 {p99:.1f} ms, 200 calls" in labels[0]
    assert "1 beyond the axis (up to 90 ms)" in labels[0]
    steps = axes.get_lines()[0]
    at_median = steps.get_ydata()[np.asarray(steps.get_xdata()) <= median].max()
    assert at_median == pytest.approx(50, abs=0.5)
    assert steps.get_ydata()[-1] == 100
    head = np.array(samples["model"]) - np.array(samples["backbone"])
    assert f"median {np.median(head):.1f} ms" in labels[2]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (20, "20"), (1000, "1k"), (20_480, "20.48k"), (2e6, "2M")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert style.short_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1224.7, "1,220"), (4.238, "4.24"), (33.0, "33"), (0.012345, "0.0123"), (-8.05, "-8.05"),
        (100.4, "100"), (0.0, "0"), (2e6, "2,000,000"),
    ],
)  # fmt: skip
def test_a_number_in_a_law_has_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert style.three_digits(value) == text
