"""The laws against other libraries, the order and the processes of the points, every suite once."""

from __future__ import annotations

import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from patchline.benchmarks.scaling import __main__ as command
from patchline.benchmarks.scaling import collect, engine_point, fit_point, models, suites
from patchline.benchmarks.scaling.collect import Collected, Series
from patchline.benchmarks.scaling.drawn import drawn_rows
from patchline.benchmarks.scaling.laws import (
    Expected,
    choose_law,
    exponent_at_the_end,
    fit_affine,
    fit_power,
)
from patchline.benchmarks.scaling.memory import peak_mib, resident_mib
from patchline.benchmarks.scaling.models import SEARCHES, make_model
from patchline.benchmarks.schema import check_file
from patchline.export.neighbors import NearestNeighbors
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, DataError
from tests.commands import Call, Caller
from tests.export.made_once import to_onnx_once
from tests.programs import run_program

SIZES = [1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0, 200_000.0]
LINEAR = Expected("a + b * rows", 1, "Because.")
QUADRATIC = Expected("b * images ** 2", 2, "Because.")


def noisy(values: Any, seed: int = 0, sd: float = 0.05) -> list[float]:
    generator = np.random.default_rng(seed)
    factors = np.exp(generator.normal(0, sd, len(values)))
    return [float(value) for value in np.asarray(values) * factors]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exponent", [-0.5, 0.7, 1.0, 2.0])
def test_a_power_law_is_scipys_regression_of_logarithms(seed: int, exponent: float) -> None:
    values = noisy(3e-3 * np.power(SIZES, exponent), seed)
    found = fit_power(SIZES, values)
    reference = scipy.stats.linregress(np.log(SIZES), np.log(values))
    assert found.exponent == pytest.approx(reference.slope, rel=1e-9)
    assert found.coefficient == pytest.approx(math.exp(reference.intercept), rel=1e-9)
    assert found.r_squared == pytest.approx(reference.rvalue**2, rel=1e-9)
    reach = scipy.stats.t(len(SIZES) - 2).interval(0.95)[1] * reference.stderr
    assert found.interval == pytest.approx((reference.slope - reach, reference.slope + reach))
    fitted = math.exp(reference.intercept) * np.power(SIZES, reference.slope)
    error = np.sqrt(np.mean((1 - fitted / np.array(values)) ** 2))
    assert found.relative_error == pytest.approx(float(error), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_a_law_with_a_constant_is_numpys_weighted_polynomial(seed: int, exponent: float) -> None:
    grown = np.power(SIZES, exponent)
    values = np.array(noisy(20 + 3e-3 * grown, seed))
    found = fit_affine(SIZES, values.tolist(), exponent)
    (slope, constant), covariance = np.polyfit(grown, values, 1, w=1 / values, cov=True)
    assert (found.constant, found.slope) == pytest.approx((constant, slope), rel=1e-7)
    quantile = scipy.stats.t.ppf(0.975, len(SIZES) - 2)
    for value, variance, interval in (
        (constant, covariance[1, 1], found.constant_interval),
        (slope, covariance[0, 0], found.slope_interval),
    ):
        reach = quantile * math.sqrt(variance)
        assert interval == pytest.approx((value - reach, value + reach), rel=1e-6)
    residuals = (values - constant - slope * grown) / values
    assert found.relative_error == pytest.approx(float(np.sqrt(np.mean(residuals**2))), rel=1e-7)
    mean = np.average(values, weights=1 / values**2)
    total = (((values - mean) / values) ** 2).sum()
    assert found.r_squared == pytest.approx(1 - float((residuals**2).sum() / total), rel=1e-7)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(400):
        low, high = fit_power(SIZES, noisy(2e-3 * np.power(SIZES, 0.9), seed)).interval
        inside += low <= 0.9 <= high
    assert scipy.stats.binomtest(inside, 400, 0.95).pvalue > 1e-3


def test_values_that_do_not_vary_follow_no_size() -> None:
    found = fit_power([1, 2, 3], [5.0, 5.0, 5.0])
    assert found.exponent == pytest.approx(0, abs=1e-12)
    assert 0 <= found.r_squared <= 1
    assert fit_affine([1, 2, 3], [5.0, 5.0, 5.0]).slope == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ([1, 2], [1, 2]),
        ([1, 1, 2], [1, 2, 3]),
        ([1, 2, 2, 3], [1, 2, 3, 4]),
        ([1, 2, 3], [1, 2]),
        ([0, 1, 2], [1, 2, 3]),
        ([1, 2, 3], [1, 2, 0]),
        ([1, 2, 3], [1, 2, math.nan]),
        ([1, 2, math.inf], [1, 2, 3]),
        ([[1, 2, 3]], [[1, 2, 3]]),
    ],
)
def test_what_has_no_law_is_refused(sizes: Any, values: Any) -> None:
    for fit in (fit_power, fit_affine, exponent_at_the_end):
        with pytest.raises(ConfigurationError, match="a law needs"):
            fit(sizes, values)


@pytest.mark.parametrize("exponent", [0, -1, math.nan, math.inf])
def test_a_part_that_does_not_grow_is_refused(exponent: float) -> None:
    with pytest.raises(ConfigurationError, match="expected a number above 0"):
        fit_affine([1, 2, 3], [1, 2, 3], exponent)


@pytest.mark.parametrize("seed", range(3))
def test_the_law_with_less_error_is_chosen(seed: int) -> None:
    with_constant = choose_law(SIZES, noisy(25 + 9e-3 * np.array(SIZES), seed, 0.01), LINEAR, "ms")
    assert with_constant["chosen"] == "affine"
    low, high = with_constant["affine"]["constant_95_ms"]
    assert low < 25 < high
    assert with_constant["why"].startswith("the constant is 2")
    assert with_constant["power"]["exponent"] < 0.9
    assert 0.9 < with_constant["exponent_at_the_end"] < 1.1
    pure = choose_law(SIZES, noisy(1e-6 * np.power(SIZES, 1.6), seed, 0.01), QUADRATIC, "ms")
    assert pure["chosen"] == "power"
    assert pure["exponent_at_the_end"] == pytest.approx(1.6, abs=0.1)
    json.dumps([with_constant, pure], allow_nan=False)


def test_a_constant_below_zero_is_not_believed() -> None:
    law = choose_law(SIZES, [0.01 * size - 5 for size in SIZES], LINEAR, "ms")
    assert law["chosen"] == "power"
    assert "below 0 and not believed" in law["why"]


def test_the_order_alternates() -> None:
    assert collect.visit_order([1, 5, 3], 0) == [1, 3, 5]
    assert collect.visit_order([1, 5, 3], 1) == [5, 3, 1]


def series_of(name: str, sizes: list[int], quantity: str = "frame") -> Series:
    laws = {quantity: LINEAR, "peak": LINEAR}
    return Series(name, "rows", sizes, "nowhere", lambda size: {"name": name, "size": size}, laws)


def test_every_point_is_visited_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []

    def visit(module: str, arguments: dict[str, Any]) -> Any:
        order.append((arguments["name"], arguments["size"]))
        if arguments["size"] == 2 and arguments["name"] == "b":
            raise DataError("no memory left")
        drift = len(order)
        memory = {"baseline": 1.0, "resident": 2.0, "peak": 100.0 + arguments["size"]}
        return {"times_ms": {"frame": [drift, 3 * drift]}, "memory_mib": memory, "facts": {"f": 1}}

    monkeypatch.setattr(collect, "run_point", visit)
    told: list[str] = []
    both = [series_of("a", [1, 2, 4]), series_of("b", [1, 2, 3, 5])]
    found = collect.collect(both, 2, told.append)
    assert order == [
        *(("a", size) for size in (1, 2, 4)),
        *(("b", size) for size in (1, 2, 3, 5)),
        *(("a", size) for size in (4, 2, 1)),
        *(("b", size) for size in (5, 3, 2, 1)),
    ]
    assert len(told) == len(order)
    assert told[4] == "round 1 of 2: b, 2 rows: failed"
    assert found["b"].failures == {2: "no memory left"}
    reported = collect.report(both[0], found["a"])
    # Drift 1 and 10 at size 1, each with three times as long a call besides.
    first = reported["points"][0]
    assert first["times"]["frame"]["visits_median_ms"] == [2, 20]
    assert first["times"]["frame"]["runs"] == 4
    assert first["times"]["frame"]["median_ms"] == 6.5
    assert first["memory"] == {
        "baseline_mib": 1.0,
        "resident_mib": 2.0,
        "peak_mib": 101.0,
        "visits_peak_mib": [101.0, 101.0],
    }
    assert reported["laws"]["peak"]["affine"]["constant_mib"] == pytest.approx(100)
    assert reported["laws"]["peak"]["affine"]["slope_mib"] == pytest.approx(1)
    other = collect.report(both[1], found["b"])
    assert [point["rows"] for point in other["points"]] == [1, 3, 5]
    assert other["failed"] == [{"rows": 2, "reason": "no memory left"}]


def test_too_few_points_have_no_law() -> None:
    visit = {
        "times_ms": {"frame": [1.0]},
        "memory_mib": {"baseline": 1.0, "resident": 1.0, "peak": 1.0},
        "facts": {},
    }
    found = Collected({1: [visit], 2: [visit]}, {3: "it failed"})
    reported = collect.report(series_of("a", [1, 2, 3]), found)
    assert "laws" not in reported
    assert len(reported["points"]) == 2


def test_a_process_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="ended with status 1"):
        collect.run_point("engine_point", {"model": "nowhere.onnx"})
    assert "TypeError" in capfd.readouterr().err


def test_a_process_killed_for_its_memory_is_told() -> None:
    assert "signal 9, as by a system without memory left" in collect._reason(-9)
    assert collect._reason(-11) == "the process was ended by signal 11"


def test_memory_is_that_of_the_process() -> None:
    before = resident_mib()
    block = np.ones(64 << 20, np.uint8)
    assert 60 < resident_mib() - before < 70
    assert peak_mib() >= before + 60
    del block
    assert peak_mib() >= before + 60


def test_the_model_of_a_point_judges(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx", image_size=64, bank_rows=50)
    with open_engine(path, provider="cpu") as engine:
        assert engine.manifest.memory_bank.rows == 50
        frames = np.zeros((2, 64, 64, 3), np.uint8)
        assert engine.infer(frames).anomaly_map.shape == (2, 64, 64)


def test_the_search_alone_finds_what_the_search_finds(tmp_path: Path) -> None:
    path = make_model(tmp_path / "s.onnx", image_size=64, bank_rows=200, only_search=True)
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    with open_engine(path, provider="cpu") as engine:
        found = engine.infer(frames).anomaly_map
    patches = drawn_rows(64, 384, seed=1) + torch.from_numpy(frames[..., :1]).view(2, 64, 1) * 1e-3
    bank = drawn_rows(200, 384, seed=0)
    expected = torch.cdist(patches.double(), bank.double()).topk(9, largest=False).indices.sum(2)
    assert np.array_equal(found.reshape(2, 64), expected.numpy())
    assert not np.array_equal(found[0], found[1])
    nearest = NearestNeighbors(bank, 9)(patches.flatten(0, 1)).sum(1)
    assert torch.equal(nearest, expected.flatten())


def test_the_pruned_search_is_made_and_named(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    found = {}
    for search in SEARCHES:
        path = tmp_path / f"{search}.onnx"
        make_model(path, image_size=64, bank_rows=200, search=search, only_search=True)
        with open_engine(path, provider="cpu") as engine:
            found[search] = engine.infer(frames).anomaly_map
            plan = engine.manifest.memory_bank.search
            assert (plan is None) == (search == "exact")
    assert (found["exact"] == found["pruned"]).mean() > 0.9


def test_a_search_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="search is 'guess', expected one of: exact"):
        make_model(tmp_path / "m.onnx", search="guess")


def test_an_engine_point_measures_as_often_as_it_is_told(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx", image_size=64, bank_rows=50)
    given = {"quantity": "frame", "batch": 2, "seconds": 0.0, "least": 3, "threads": 1}
    found = engine_point.measure(path, **given)  # type: ignore[arg-type]
    assert len(found["times_ms"]["frame"]) == 3
    memory = found["memory_mib"]
    assert 0 < memory["baseline"] <= memory["peak"]
    assert memory["resident"] <= memory["peak"]


def test_an_engine_point_loads_no_pytorch() -> None:
    """Its memory would be counted."""
    code = "import sys, patchline.benchmarks.scaling.engine_point; print('torch' in sys.modules)"
    program = [sys.executable, "-c", code]
    done = run_program(program, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def case(part: str, **changes: Any) -> fit_point.FitCase:
    given: dict[str, Any] = {
        "part": part, "images": 8, "grid": 4, "ratio": 0.1, "rows": 0, "spill": "budget",
        "budget_mib": 1024, "threads": 0,
    }  # fmt: skip
    return fit_point.FitCase(**(given | changes))


@pytest.mark.parametrize("spill", ["never", "always", "budget"])
def test_features_lie_where_they_are_asked_to(spill: Any) -> None:
    found = fit_point.measure(case("features", spill=spill))
    assert found["facts"]["on_disk"] == (spill == "always")
    assert found["facts"]["rows"] == 8 * 16
    assert found["times_ms"].keys() == {"features"}


def test_features_past_the_budget_lie_on_disk() -> None:
    """Of 200 x 64 rows, 10 MiB are held whatever happens, and the features take 19."""
    large = {"images": 200, "grid": 8, "ratio": 0.01}
    assert case("fit", budget_mib=40, **large).plan().spill is None
    assert case("fit", budget_mib=20, **large).plan().spill is not None
    found = fit_point.measure(case("features", budget_mib=20, **large))
    assert found["facts"]["on_disk"] == 1
    with pytest.raises(ConfigurationError, match="the memory budget is 8 MiB"):
        case("fit", budget_mib=8, **large).plan()


@pytest.mark.parametrize(("rows", "picks"), [(0, 12), (30, 30), (5000, 128)])
def test_a_coreset_has_the_rows_of_the_ratio_or_those_given(rows: int, picks: int) -> None:
    found = fit_point.measure(case("coreset", rows=rows))
    assert found["facts"]["picks"] == picks
    assert found["times_ms"].keys() == {"coreset"}


def test_a_whole_fit_is_the_sum_of_its_parts() -> None:
    times = fit_point.measure(case("fit"))["times_ms"]
    assert times.keys() == {"features", "cross-fit", "threshold", "bank", "fit"}
    parts = sum(time for name, (time,) in times.items() if name != "fit")
    assert times["fit"] == [pytest.approx(parts, abs=0.01)]


def test_drawn_rows_are_the_same_each_time_and_of_one_spread() -> None:
    rows = drawn_rows(500, 384, seed=3)
    assert torch.equal(rows, drawn_rows(500, 384, seed=3))
    assert not torch.equal(rows, drawn_rows(500, 384, seed=4))
    values = np.linalg.svd((rows - rows.mean(0)).numpy(), compute_uv=False) ** 2
    assert values[:24].sum() > 0.8 * values.sum()


@pytest.mark.parametrize("text", ["", "1,2", "1,1,2", "a,b,c", "0,1,2", "-1,2,3", "1,2,3.5"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected at least three different numbers"):
        suites.parse_sizes(text)


def test_sizes_are_put_in_order() -> None:
    assert suites.parse_sizes("30, 10,20,10") == (10, 20, 30)


TINY = (
    "--bank", "64,128,320", "--image", "64,96,128", "--batch", "1,2,3", "--fit", "8,12,20",
    "--bank-rows", "64", "--image-size", "64", "--rounds", "1", "--seconds", "0",
    "--fit-rounds", "1", "--fit-grid", "4",
)  # fmt: skip


class Points:
    """The first point of each module has a process of its own, and the one that fails: a start
    of Python with PyTorch takes seconds. The others are measured in this process.
    """

    FAILS_AT_IMAGES = 200

    def __init__(self) -> None:
        self.run_point = collect.run_point
        self.count = 0
        self.in_processes: set[str] = set()

    def __call__(self, module: str, arguments: dict[str, Any]) -> collect.Visit:
        self.count += 1
        if module not in self.in_processes or arguments.get("images") == self.FAILS_AT_IMAGES:
            self.in_processes.add(module)
            return self.run_point(module, arguments)
        given = {name: value for name, value in arguments.items() if name != "folder"}
        if module == "fit_point":
            return fit_point.measure(fit_point.FitCase(**given))
        return engine_point.measure(Path(given.pop("model")), **given)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Points:
    points = Points()
    monkeypatch.setattr(collect, "run_point", points)
    monkeypatch.setattr(models, "to_onnx", to_onnx_once)  # three suites measure one size alike
    return points


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command in this process."""
    return functools.partial(Caller(monkeypatch, capsys), command)


# also runs: scaling.engine_point, scaling.fit_point
def test_smoke_scaling(scaling: Call, points: Points, tmp_path: Path) -> None:
    """Every suite at tiny sizes, each in a file that the schema takes."""
    done = scaling(*TINY, "--out", tmp_path)
    assert done.status == 0, done.stderr
    assert points.in_processes == {"engine_point", "fit_point"}
    assert points.count == 6 + 3 + 3 + 5 * 3
    found = {}
    for path in tmp_path.rglob("*.json"):
        result = check_file(path)
        found[result.suite] = result.results
    assert found.keys() == {f"scaling-{name}" for name in suites.SUITES}
    assert len(done.stderr.split("round 1 of 1")) == 1 + 6 + 3 + 3 + 5 * 3
    for results in found.values():
        for series in results["series"]:
            assert len(series["points"]) == 3
            assert "failed" not in series
            assert set(series["laws"]) <= {*series["points"][0]["times"], "peak"}
            assert all(law["expected"]["reason"] for law in series["laws"].values())
    by_name = {series["name"]: series for series in found["scaling-bank"]["series"]}
    assert by_name.keys() == {"frame (exact)", "search (exact)"}
    assert [point["bank_rows"] for point in by_name["frame (exact)"]["points"]] == [64, 128, 320]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "bank,nothing"), "only is nothing, expected some of: bank, image, batch, fit"),
        (("--only", ""), "only is empty"),
        (("--search", "guess"), "search is 'guess'"),
        (("--bank", "1,2"), "expected at least three different numbers"),
    ],
)
def test_what_cannot_be_measured_is_said_first(
    scaling: Call, words: tuple[str, ...], message: str
) -> None:
    done = scaling(*words)
    assert done.status == 1
    assert message in done.stderr
    assert "making a model" not in done.stderr


def test_a_point_that_fails_is_told_and_the_others_are_written(
    scaling: Call, points: Points, tmp_path: Path
) -> None:
    words = ("--only", "fit", "--fit", "8,12,20,200", "--fit-grid", "4", "--fit-rounds", "1")
    # The projections of 200 images have no place in such a budget, and those of 20 have.
    done = scaling(*words, "--bank-rows", "64", "--budget-mib", "1", "--out", tmp_path)
    assert done.status == 1
    assert "points failed, the others are written" in done.stderr
    (path,) = tmp_path.rglob("*.json")
    series = {item["name"]: item for item in check_file(path).results["series"]}
    whole = series["fit within the memory budget"]
    assert [failed["images"] for failed in whole["failed"]] == [200]
    assert len(whole["points"]) == 3
