"""The check for a GPU, without one: packed for real, and run on ONNX Runtime in a plan's place."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from patchline.benchmarks.gpu_check import figures
from patchline.benchmarks.gpu_check.bench import Bench, Found, Sizes
from patchline.benchmarks.gpu_check.carried import (
    CASES,
    EXTERNAL,
    OTHER,
    Carried,
    Case,
    in_folder,
    load_carried,
)
from patchline.benchmarks.gpu_check.compare import TOLERANCES, differences, problems, worst
from patchline.benchmarks.gpu_check.lasting import banks, endurance
from patchline.benchmarks.gpu_check.pack import PackSettings, fit_settings, pack_models
from patchline.benchmarks.gpu_check.plans import compare
from patchline.benchmarks.gpu_check.run import PARTS, run_parts
from patchline.export import parity
from patchline.runtime.contract import Manifest, Precision, Threshold, load_manifest, manifest_path
from patchline.runtime.engine import Engine, Prediction, open_engine
from patchline.runtime.errors import ConfigurationError, DataError, EngineError
from patchline.runtime.preprocess import Frame
from tests.export.made_once import trace_once
from tests.programs import run_program

SETTINGS = PackSettings(image_size=64, bank_rows=640)
SIZES = Sizes(inferences=60, rounds=2, batches=(1, 3), switches=4)
TOLERANCE = TOLERANCES["fp32"]
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Of every precision the float32 graph is the same."""
    with pytest.MonkeyPatch.context() as patch:
        trace_once(patch)
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder; only to be read."""
    out = tmp_path_factory.mktemp("packed") / "models"
    pack_models(out, SETTINGS)
    return out


@pytest.fixture
def carried(packed: Path, tmp_path: Path) -> Carried:
    return in_folder(load_carried(packed), tmp_path / "work")


class Done:
    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def result(self) -> Prediction:
        return self.prediction


class OnnxPlan:
    """ONNX Runtime with slots, and with whatever a test does to its outputs."""

    def __init__(self, engine: Engine, change: Callable[[Prediction], Prediction]) -> None:
        self.engine, self.change = engine, change

    @property
    def manifest(self) -> Manifest:
        return self.engine.manifest

    @property
    def description(self) -> str:
        return self.engine.description

    def infer(self, frames: Frame) -> Prediction:
        return self.change(self.engine.infer(frames))

    def submit(self, frames: Frame) -> Done:
        return Done(self.infer(frames))

    def load_bank(self, path: Path) -> None:
        self.engine.load_bank(path)


class Device:
    """A GPU that loses memory with every look."""

    total_bytes = 8 << 30

    def __init__(self, lost_bytes: int = 0) -> None:
        self.lost_bytes, self.free = lost_bytes, 4 << 30

    @property
    def free_bytes(self) -> int:
        self.free -= self.lost_bytes
        return self.free


def unchanged(prediction: Prediction) -> Prediction:
    return prediction


def make_bench(
    carried: Carried,
    change: Callable[[Prediction], Prediction] = unchanged,
    device: Device | None = None,
    sizes: Sizes = SIZES,
) -> Bench:
    @contextlib.contextmanager
    def opened(case: Case, cuda_graph: bool) -> Iterator[Any]:
        case.model.with_suffix(".trt").write_bytes(b"a plan")
        with open_engine(case.model, provider="cpu", threads=1, bank=case.bank) as engine:
            yield OnnxPlan(engine, change)

    return Bench(carried, device or Device(), opened, sizes)


def strict_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON")
    )
    return document


class TestPack:
    def test_every_model_lies_there_once_with_its_outputs(self, packed: Path) -> None:
        names = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
        assert names == {
            "embedded/gasket.onnx",
            "embedded/gasket.json",
            "external/resnet18-64.onnx",
            "external/resnet18-64.json",
            "external/gasket.bank",
            "other/gasket-half.bank",
            "backbone/backbone.onnx",
            "backbone/backbone.json",
            "frames.npz",
            "embedded.npz",
            "external.npz",
            "other.npz",
            "backbone.npz",
            "packed.json",
        }

    def test_the_bank_has_the_rows_that_were_asked_for(self, packed: Path) -> None:
        manifest = load_manifest(manifest_path(packed / "embedded/gasket.onnx"))
        assert manifest.memory_bank.rows == SETTINGS.bank_rows

    def test_the_outputs_are_those_of_the_files(self, packed: Path) -> None:
        loaded = load_carried(packed)
        for case in [*loaded.cases.values(), loaded.other]:
            with open_engine(case.model, provider="cpu", bank=case.bank) as engine:
                found = engine.infer(loaded.frames)
            for name, value in vars(found).items():
                np.testing.assert_allclose(
                    value, getattr(case.expected, name), rtol=1e-4, atol=1e-6
                )

    def test_ties_are_what_two_graphs_may_differ_by(self, packed: Path) -> None:
        cases = load_carried(packed).cases
        threshold = load_manifest(manifest_path(cases["embedded"].model)).threshold
        one, two = cases["embedded"], cases["external"]
        assert (
            problems(differences(one.expected, two.expected, one.allowed, threshold), TOLERANCE)
            == []
        )
        assert not one.allowed.influence_map.all() and one.allowed.influence_map.min() >= 0
        assert not cases["backbone"].allowed.influence_map.any()

    def test_inside_and_beside_give_the_same_and_the_second_product_something_else(
        self, packed: Path
    ) -> None:
        loaded = load_carried(packed)
        scores = {name: case.expected.image_score for name, case in loaded.cases.items()}
        np.testing.assert_allclose(scores["embedded"], scores["external"], rtol=1e-4)
        other = loaded.other.expected.image_score
        assert (np.abs(other / scores["external"] - 1) > 10 * TOLERANCE.image_score).any()

    def test_the_backbone_alone_gives_outputs_of_the_whole_contract(self, packed: Path) -> None:
        expected = load_carried(packed).cases["backbone"].expected
        assert expected.anomaly_map.shape == expected.influence_map.shape == (8, 64, 64)
        assert np.ptp(expected.image_score) > 0
        np.testing.assert_array_equal(expected.anomaly_map[:, 5, 7], expected.image_score)

    def test_a_large_batch_computes_what_single_frames_do(self, packed: Path) -> None:
        record = strict_json(packed / "packed.json")
        assert set(record["batch_max_score_error"]) == {*CASES, OTHER}
        assert max(record["batch_max_score_error"].values()) < 1e-4

    def test_a_folder_that_holds_something_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(ConfigurationError, match="is not empty: give a new folder"):
            pack_models(tmp_path, SETTINGS)
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_more_rows_than_patches_are_refused(self) -> None:
        assert fit_settings(PackSettings(image_size=64, bank_rows=1280)).coreset_ratio == 1
        with pytest.raises(ConfigurationError, match="is 1281, expected at most 1280"):
            fit_settings(PackSettings(image_size=64, bank_rows=1281))


@pytest.mark.parametrize(("precision", "bank"), [("fp16", "fp16"), ("int8", "fp32")])
def test_another_precision_is_packed_alike(tmp_path: Path, precision: str, bank: str) -> None:
    out = tmp_path / "models"
    record = pack_models(out, replace(SETTINGS, precision=precision))
    assert set(record["batch_max_score_error"]) == {*CASES, OTHER}
    loaded = load_carried(out)
    for case in [*loaded.cases.values(), loaded.other]:
        with open_engine(case.model, provider="cpu", bank=case.bank) as engine:
            assert engine.manifest.precision == precision
            assert engine.manifest.memory_bank.precision == bank
            found = engine.infer(loaded.frames)
        wrong = differences(case.expected, found, case.allowed, engine.manifest.threshold)
        assert problems(wrong, TOLERANCES[precision]) == []
    nodes = onnx.load(loaded.cases["backbone"].model).graph.node
    assert not [node for node in nodes if node.op_type in ("Gemm", "TopK")]
    operator = {"fp16": "Cast", "int8": "DequantizeLinear"}[precision]
    assert [node for node in nodes if node.op_type == operator]
    halves = [case.expected.image_score for case in (loaded.cases[EXTERNAL], loaded.other)]
    assert not np.allclose(*halves, rtol=1e-3)


def test_every_precision_has_its_tolerances() -> None:
    assert set(TOLERANCES) == set(get_args(Precision))


def test_an_unknown_precision_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="precision is fp8, expected one of"):
        pack_models(tmp_path / "models", replace(SETTINGS, precision="fp8"))
    assert not (tmp_path / "models").exists()


class TestCarried:
    @pytest.mark.parametrize(
        "missing",
        [
            "frames.npz",
            "packed.json",
            "other.npz",
            "embedded/gasket.onnx",
            "other/gasket-half.bank",
        ],
    )
    def test_an_incomplete_folder_says_how_to_write_it(
        self, packed: Path, tmp_path: Path, missing: str
    ) -> None:
        folder = tmp_path / "models"
        shutil.copytree(packed, folder)
        (folder / missing).unlink()
        with pytest.raises(DataError, match=r"is not complete .*gpu_check pack --out models"):
            load_carried(folder)

    def test_pickled_arrays_are_not_loaded(self, packed: Path, tmp_path: Path) -> None:
        folder = tmp_path / "models"
        shutil.copytree(packed, folder)
        np.savez(folder / "frames.npz", frames=np.array([{}], dtype=object))
        with pytest.raises(DataError, match="allow_pickle=False"):
            load_carried(folder)


THRESHOLD = Threshold(value=2.0, map_value=2.0, rule="drawn", false_alarm_rate=0.05)


def prediction(frames: int = 3, seed: int = 0) -> Prediction:
    rng = np.random.default_rng(seed)
    return Prediction(
        np.array([1.0, 2.5, 4.0, 0.0], np.float32)[:frames],
        rng.random((frames, 4, 5), np.float32),
        rng.random((frames, 4, 5), np.float32),
    )


NOTHING = Prediction(*(np.zeros_like(values) for values in vars(prediction()).values()))


class TestCompare:
    def test_the_tolerances_are_those_of_an_export(self) -> None:
        exported = parity.Tolerances()
        assert TOLERANCE.image_score == exported.image_score
        assert TOLERANCE.anomaly_map == exported.anomaly_map
        assert TOLERANCE.influence_map == exported.influence_map

    def test_against_plain_loops(self) -> None:
        expected, found = prediction(seed=1), prediction(seed=2)
        given = replace(found, image_score=expected.image_score + np.float32(0.25))
        spare = replace(prediction(seed=3), image_score=np.float32([0.5, 0, 0]))
        result = differences(expected, given, spare, THRESHOLD)
        heat, influence = 0.0, 0.0
        for i in range(3):
            largest = max(float(v) for v in expected.anomaly_map[i].flat)
            for y in range(4):
                for x in range(5):
                    off = abs(expected.anomaly_map[i, y, x] - found.anomaly_map[i, y, x])
                    heat = max(heat, float(off - spare.anomaly_map[i, y, x]) / largest)
                    off = abs(expected.influence_map[i, y, x] - found.influence_map[i, y, x])
                    influence = max(influence, float(off - spare.influence_map[i, y, x]))
        assert result["image_score_max_relative_error"] == pytest.approx(0.25 / 2.5)
        assert result["anomaly_map_max_relative_error"] == pytest.approx(heat)
        assert result["influence_map_max_error"] == pytest.approx(influence)
        assert (result["frames"], result["verdicts_that_agree"]) == (3, 3)

    def test_equal_outputs_have_no_problem(self) -> None:
        result = differences(prediction(), prediction(), NOTHING, THRESHOLD)
        assert problems(result, TOLERANCE) == []
        assert result["image_score_max_relative_error"] == 0

    def test_a_score_of_nothing_is_compared_by_the_threshold(self) -> None:
        expected = prediction(4)
        found = replace(expected, image_score=expected.image_score.copy())
        found.image_score[3] = 1e-5
        nothing = Prediction(*(np.zeros_like(values) for values in vars(expected).values()))
        result = differences(expected, found, nothing, THRESHOLD)
        assert result["image_score_max_relative_error"] == pytest.approx(1e-5 / 0.02)

    @pytest.mark.parametrize(
        ("field", "off", "message"),
        [
            ("image_score", 0.02, "image_score_max_relative_error is "),
            ("anomaly_map", 0.02, "anomaly_map_max_relative_error is "),
            ("influence_map", 0.02, "influence_map_max_error is 2.00e-02, expected at most 1e-02"),
        ],
    )
    def test_what_is_out_of_tolerance_is_named(self, field: str, off: float, message: str) -> None:
        expected = prediction()
        moved = replace(expected, **{field: getattr(expected, field) + np.float32(off)})
        (problem,) = problems(differences(expected, moved, NOTHING, THRESHOLD), TOLERANCE)
        assert re.match(message, problem)

    def test_another_verdict_is_a_problem_however_small_the_difference(self) -> None:
        expected = replace(prediction(), image_score=np.array([2.0, 2.5, 4.0], np.float32))
        below = np.nextafter(np.float32(2), np.float32(0))
        found = replace(expected, image_score=np.array([below, 2.5, 4.0], np.float32))
        result = differences(expected, found, NOTHING, THRESHOLD)
        assert problems(result, TOLERANCE) == ["2 of 3 verdicts agree"]

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("field", ["image_score", "anomaly_map", "influence_map"])
    def test_what_is_no_number_is_refused(self, field: str, value: float) -> None:
        found = prediction()
        getattr(found, field).flat[1] = value
        with pytest.raises(EngineError, match=f"{field} holds values that are not finite"):
            differences(prediction(), found, NOTHING, THRESHOLD)

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(EngineError, match=r"image_score is \[2\], expected \[3\]"):
            differences(prediction(), prediction(2), NOTHING, THRESHOLD)

    def test_the_worst_of_several_keeps_maxima_and_adds_counts(self) -> None:
        base = differences(prediction(), prediction(), NOTHING, THRESHOLD)
        bad = base | {"image_score_max_relative_error": 0.5, "verdicts_that_agree": 2}
        joined = worst([base, bad])
        assert joined == base | {
            "frames": 6,
            "verdicts_that_agree": 5,
            "image_score_max_relative_error": 0.5,
        }


class TestFigures:
    def test_percentiles_are_nearest_ranks(self) -> None:
        samples = [float(v) for v in np.random.default_rng(3).gamma(2.0, 3.0, 101)]
        found = figures.latency(samples)
        expected = {
            f"p{percent}_ms": np.percentile(samples, percent, method="inverted_cdf")
            for percent in (90, 95, 99)
        } | {
            "min_ms": min(samples),
            "mean_ms": np.mean(samples),
            "median_ms": np.median(samples),
            "max_ms": max(samples),
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert found["cv_percent"] == pytest.approx(
            100 * np.std(samples) / np.mean(samples), abs=0.01
        )
        assert found["runs"] == 101

    def test_growth_is_counted_after_the_first_tenth(self) -> None:
        grown = figures.Growth()
        for step in range(0, 1001, 10):
            grown.add(step, 500 * MIB + (0 if step < 100 else 7 * step))
        found = grown.summary()
        assert (found["first_bytes"], found["last_bytes"]) == (500 * MIB, 500 * MIB + 7000)
        assert found["max_bytes"] == 500 * MIB + 7000
        assert found["settled_growth_bytes"] == 7 * 900
        assert found["settled_slope_bytes_per_1000"] == pytest.approx(7000, abs=1)
        assert found["samples"] == 101

    def test_one_sample_has_no_slope(self) -> None:
        grown = figures.Growth()
        grown.add(0, 5)
        assert grown.summary()["settled_slope_bytes_per_1000"] == 0

    def test_host_memory_sees_what_is_taken(self) -> None:
        before = figures.host_bytes()
        # So much that it does not come out of memory that earlier tests gave back to Python.
        taken = np.ones(256 * MIB, np.uint8)
        assert figures.host_bytes() - before > 192 * MIB
        del taken

    def test_a_system_that_does_not_tell_its_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(figures, "_STATM", tmp_path / "statm")
        with pytest.raises(ConfigurationError, match="statm cannot be read"):
            figures.host_bytes()

    def test_ratios_are_of_pairs(self) -> None:
        first, second = [2.0, 30.0, 4.0], [1.0, 10.0, 1.0]
        assert figures.paired_median(first, second, lambda a, b: a / b) == 3.0


class TestRun:
    def test_smoke_gpu_check(self, carried: Carried, tmp_path: Path) -> None:
        out, said = tmp_path / "gpu-check.json", []
        failures = run_parts(make_bench(carried), PARTS, {"machine": {}}, out, said.append)
        document = strict_json(out)
        assert failures == document["failures"] == []
        assert document["not_run"] == []
        assert list(document["parts"]) == list(PARTS) == [line.split(":")[0] for line in said]
        parts = document["parts"]
        assert parts["build"]["embedded"]["plan_bytes"] == len(b"a plan")
        assert set(parts["compare"]) == {"seconds"} | {
            f"{case}, {way}" for case in CASES for way in ("cuda_graph", "stream")
        }
        # 8 frames one by one, 6 in threes; twice.
        assert parts["compare"]["external, stream"]["frames"] == 2 * (8 + 6)
        latency = parts["latency"]["batch 3"]
        assert latency["embedded, cuda_graph"]["runs"] == SIZES.rounds
        assert {"min_ms", "mean_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms"} < set(
            latency["backbone, stream"]
        )
        assert "external over embedded, stream" in latency["ratios"]
        assert "head over backbone, cuda_graph" in latency["ratios"]
        assert set(parts["throughput"]) == {"seconds", "batch 1"}
        assert parts["endurance"]["inferences"] == SIZES.inferences
        assert parts["endurance"]["gpu_memory"]["samples"] > 50
        assert {EXTERNAL, OTHER, "load_bank"} < set(parts["banks"])

    def test_wrong_outputs_are_failures_of_the_part_that_saw_them(
        self, carried: Carried, tmp_path: Path
    ) -> None:
        def louder(found: Prediction) -> Prediction:
            return replace(found, image_score=found.image_score * np.float32(1.01))

        bench, out = make_bench(carried, louder), tmp_path / "out.json"
        failures = run_parts(bench, {"compare": compare}, {}, out, str)
        assert strict_json(out)["failures"] == failures
        assert any("embedded, stream: image_score_max_relative" in each for each in failures)

    def test_a_part_that_fails_is_recorded_and_the_next_goes_on(
        self, carried: Carried, tmp_path: Path
    ) -> None:
        out = tmp_path / "out.json"

        def lost(bench: Bench) -> Found:
            assert strict_json(out)["not_run"] == ["lost", "unforeseen", "well"]
            raise EngineError("the GPU fell off")

        def unforeseen(bench: Bench) -> Found:
            assert strict_json(out)["parts"]["lost"]["error"] == "the GPU fell off"
            raise KeyError("stream")

        parts = {"lost": lost, "unforeseen": unforeseen, "well": lambda bench: Found({"n": 1}, [])}
        failures = run_parts(make_bench(carried), parts, {}, out, str)
        assert failures == ["lost: the GPU fell off", "unforeseen: KeyError: 'stream'"]
        document = strict_json(out)
        assert "Traceback" in document["parts"]["unforeseen"]["error"]
        assert document["parts"]["well"]["n"] == 1

    def test_an_interrupt_keeps_what_was_found(self, carried: Carried, tmp_path: Path) -> None:
        def interrupted(bench: Bench) -> Found:
            raise KeyboardInterrupt

        out = tmp_path / "out.json"
        parts = {"well": lambda bench: Found({}, []), "long": interrupted}
        with pytest.raises(KeyboardInterrupt):
            run_parts(make_bench(carried), parts, {}, out, str)
        document = strict_json(out)
        assert list(document["parts"]) == ["well"] and document["not_run"] == ["long"]

    @pytest.mark.parametrize("part", [endurance, banks])
    def test_gpu_memory_that_grows_is_a_failure(self, carried: Carried, part: Any) -> None:
        sizes = replace(SIZES, switches=60)
        found = part(make_bench(carried, device=Device(lost_bytes=100_000), sizes=sizes))
        assert any("gpu memory grew by" in failure for failure in found.failures)
        assert found.figures["gpu_memory"]["settled_slope_bytes_per_1000"] > 0

    def test_a_bank_that_does_not_switch_is_a_failure(
        self, carried: Carried, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(OnnxPlan, "load_bank", lambda self, path: None)
        failures = banks(make_bench(carried)).failures
        assert failures and all(failure.startswith(f"{OTHER}: ") for failure in failures)

    def test_a_frame_in_flight_that_sees_the_new_bank_is_a_failure(
        self, carried: Carried, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Late:
            def __init__(self, plan: OnnxPlan, frames: Frame) -> None:
                self.plan, self.frames = plan, frames

            def result(self) -> Prediction:
                return self.plan.infer(self.frames)

        monkeypatch.setattr(OnnxPlan, "submit", lambda self, frames: Late(self, frames))
        failures = banks(make_bench(carried)).failures
        assert any("in flight changed its score" in failure for failure in failures)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchline.benchmarks.gpu_check", *arguments]
    return run_program(command, capture_output=True, text=True, check=False)


class TestCommand:
    def test_without_a_gpu_it_ends_in_a_sentence(self, packed: Path, tmp_path: Path) -> None:
        out = tmp_path / "gpu-check.json"
        done = run_command("run", str(packed), "--out", str(out))
        if done.returncode == 0:
            pytest.skip("this machine has a GPU and everything it needs")
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert not out.exists()

    def test_a_folder_that_was_not_packed(self, tmp_path: Path) -> None:
        done = run_command("run", str(tmp_path))
        assert done.returncode == 1
        assert "is not complete" in done.stderr and done.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", [(), ("walk",), ("--help",)])
    def test_usage(self, arguments: tuple[str, ...]) -> None:
        done = run_command(*arguments)
        assert done.returncode == 2 and "gpu_check pack|run" in done.stderr

    def test_run_needs_no_training_side(self) -> None:
        code = (
            "import sys\nfrom patchline.benchmarks.gpu_check import __main__\n"
            "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'sklearn'} & set(sys.modules)))"
        )
        done = run_program([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
