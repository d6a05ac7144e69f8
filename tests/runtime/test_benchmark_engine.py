"""``benchmark-engine`` as a program: what it measures, prints and refuses, with both engines."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.benchmark.stats import summarize
from patchline.runtime.benchmark.subject import CPU_PROVIDER
from patchline.runtime.cli import benchmark_engine
from patchline.runtime.cli.benchmark_report import print_comparison
from patchline.runtime.contract import load_manifest, manifest_path, model_digest
from patchline.runtime.engine import compat
from patchline.runtime.engine.plans.record import Device, load_record, record_path
from patchline.runtime.files import sha256_of_file

from ..commands import Call, Caller, Finished
from .fake_cuda import World, install
from .fake_tensorrt import make_flavour, write_plan
from .tiny_model import (
    make_manifest,
    make_trained_manifest,
    write_manifest,
    write_tiny_bank,
    write_tiny_graph,
    write_tiny_model,
)

PAGE = Path(__file__).parents[2] / "docs/benchmark-engine.md"
QUICK = ("--warm-up", 0, "--iterations", 3, "--duration", 0.01, "--batch", 2)
STATISTICS = {"min_ms", "mean_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    caller = Caller(monkeypatch, capsys)
    return lambda *words: caller(benchmark_engine, *words)


@pytest.fixture
def plan(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan for 1 to 4 frames, and a GPU in memory that runs it."""
    world = World(mood="eager", takes_ms={"upload": 2.0, "compute": 5.0, "graph": 5.0})
    install(monkeypatch, world)
    monkeypatch.setattr(compat, "load_flavour", lambda name: make_flavour(world))
    return write_plan(tiny_model)


def refused(finished: Finished, status: int = 1) -> str:
    assert (finished.status, finished.stdout) == (status, "")
    return finished.sentence


class TestOnnx:
    def test_the_document(self, tiny_model: Path, call: Call) -> None:
        done = call("--engine", tiny_model, "--threads", 1, *QUICK, "--json", "--samples")
        assert done.status == 0
        document, manifest = done.document, load_manifest(manifest_path(tiny_model))
        assert (document["type"], document["schema_version"]) == ("benchmark", 1)
        assert document["settings"] == {"warm_up_ms": 0.0, "iterations": 3, "duration_s": 0.01}
        engine, mode = document["engine"], document["mode"]
        assert manifest.onnx is not None
        assert engine["file"] == "lamp.onnx" and engine["bank"] is None
        assert engine["sha256"] == engine["onnx_sha256"] == manifest.onnx.sha256
        assert engine["image_size_px"] == [32, 32] and engine["class"] == "lamp"
        assert (mode["runtime"], mode["provider"]) == ("ONNX Runtime", CPU_PROVIDER)
        assert (mode["threads"], mode["wait"], mode["transfers"]) == (1, "none", "none")
        assert mode["cuda_graph"] is False and mode["batch"] == {"least": 1, "most": None}
        assert document["frames"] == {"source": "random", "count": 16, "seed": 0}
        runs = document["throughput"]
        assert [(run["batch"], run["in_flight"]) for run in runs] == [(1, 1), (2, 1)]

    def test_the_statistics_are_those_of_the_samples(self, tiny_model: Path, call: Call) -> None:
        document = call("--engine", tiny_model, *QUICK, "--json", "--samples").document
        samples, latency = document["samples_ms"], document["latency"]
        assert len(samples["end_to_end"]) == latency["end_to_end"]["runs"] >= 3
        expected = summarize(samples["end_to_end"])
        for name in STATISTICS:
            assert latency["end_to_end"][name] == pytest.approx(getattr(expected, name), abs=2e-4)
        for run, times in zip(document["throughput"], samples["throughput"], strict=True):
            assert run["call"]["runs"] == len(times)
            rate = run["batch"] * len(times) / run["elapsed_s"]
            assert run["frames_per_s"] == pytest.approx(rate, rel=0.02)
            assert sum(times) <= 1e3 * run["elapsed_s"] + 0.2

    def test_phases_are_not_available_and_never_zero(self, tiny_model: Path, call: Call) -> None:
        document = call("--engine", tiny_model, *QUICK, "--json").document
        assert set(document["latency"]["phases"]) == {"h2d", "compute", "d2h", "enqueue"}
        assert set(document["latency"]["phases"].values()) == {None}
        assert "samples_ms" not in document
        printed = call("--engine", tiny_model, *QUICK).stdout
        assert "H2D, compute, D2H, enqueue: not available" in printed

    def test_what_people_read(self, tiny_model: Path, call: Call) -> None:
        done = call("--engine", tiny_model, "--threads", 2, *QUICK)
        for words in (
            f"engine     lamp.onnx, sha256 {model_digest(tiny_model)[:12]}…",
            "CUDA graph off; transfers none, all on the CPU; wait: idle CPU threads spin",
            "threads: 2",
            "16 random ones, seed 0",
            "0 ms of warm-up, then at least 3 calls and 0.01 s",
            "Latency in ms, batch 1",
            "frames/s",
        ):
            assert words in done.stdout
        assert "batch 2: one call after the other" in done.stderr
        for line in done.stdout.splitlines():
            assert len(line) <= 80 or not line.startswith(("│", "┃"))
            assert "…" not in line or "sha256" in line

    def test_pictures(self, tiny_model: Path, pictures: Path, call: Call) -> None:
        document = call("--engine", tiny_model, "--images", pictures, *QUICK, "--json").document
        assert document["frames"] == {"source": "pictures", "count": 5, "seed": None}
        printed = call("--engine", tiny_model, "--images", pictures, *QUICK).stdout
        assert "5 pictures of pictures" in printed

    def test_a_model_without_a_bank(self, tmp_path: Path, call: Call) -> None:
        model = write_tiny_model(tmp_path, make_trained_manifest())
        document = call("--engine", model, *QUICK, "--json").document
        assert document["engine"]["bank_rows"] is None
        assert "32 x 32 px, no memory bank" in call("--engine", model, *QUICK).stdout

    def test_a_graph_with_its_bank(self, tmp_path: Path, call: Call) -> None:
        graph, bank = write_tiny_graph(tmp_path), write_tiny_bank(tmp_path / "cap.bank")
        document = call("--engine", graph, "--bank", bank, *QUICK, "--json").document
        assert document["engine"]["bank"] == {"file": "cap.bank", "sha256": sha256_of_file(bank)}
        assert document["engine"]["class"] == "cap"
        assert document["engine"]["onnx_sha256"] == sha256_of_file(graph)
        assert "in cap.bank (sha256" in call("--engine", graph, "--bank", bank, *QUICK).stdout

    def test_times_that_vary_are_a_warning(self, tiny_model: Path, call: Call) -> None:
        done = call("--engine", tiny_model, *QUICK, "--json")
        unsteady = [w for w in done.document["warnings"] if "coefficient of variation" in w]
        large = [run for run in done.document["throughput"] if run["call"]["cv_percent"] > 2.5]
        assert len(unsteady) == len(large)
        for warning in done.document["warnings"]:
            assert f"warning: {warning}" in done.stderr


class TestPlan:
    def test_phases_slots_and_graphs(self, plan: Path, call: Call) -> None:
        done = call("--engine", plan, *QUICK, "--json", "--samples")
        document, record = done.document, load_record(plan)
        engine, mode = document["engine"], document["mode"]
        assert engine["file"] == "lamp.trt"
        assert engine["sha256"] == record.plan_sha256 != engine["onnx_sha256"]
        assert engine["onnx_sha256"] == record.onnx_sha256
        assert (mode["runtime"], mode["version"]) == ("TensorRT", "10.3.0")
        assert (mode["gpu"], mode["threads"], mode["cuda_graph"]) == ("Orin (8.7)", None, True)
        assert (mode["wait"], mode["transfers"]) == ("cuda", "counted")
        assert mode["batch"] == {"least": 1, "most": 4} and mode["in_flight"] == 2
        phases = document["latency"]["phases"]
        for name, expected in (("h2d", 2.0), ("compute", 5.0), ("d2h", 0.0)):
            assert phases[name]["median_ms"] == expected
            assert set(document["samples_ms"]["phases"][name]) == {expected}
        assert phases["enqueue"]["median_ms"] > 0
        runs = [(run["batch"], run["in_flight"]) for run in document["throughput"]]
        assert runs == [(1, 1), (1, 2), (2, 1), (2, 2)]

    def test_the_largest_batch_is_the_plans_own(self, plan: Path, call: Call) -> None:
        quick = QUICK[: QUICK.index("--batch")]
        document = call("--engine", plan, *quick, "--json").document
        assert {run["batch"] for run in document["throughput"]} == {1, 2, 4}

    def test_what_people_read(self, plan: Path, call: Call) -> None:
        printed = call("--engine", plan, *QUICK, "--no-cuda-graph").stdout
        for words in (
            "runtime    TensorRT 10.3.0, Orin (8.7)",
            "CUDA graph off; transfers counted; wait: CUDA's default",
            "of ONNX file",
            "enqueue",
        ):
            assert words in printed
        assert "not available" not in printed
        assert "CUDA graph on" in call("--engine", plan, *QUICK).stdout

    def test_against_the_model_that_it_was_built_from(
        self, plan: Path, tiny_model: Path, call: Call
    ) -> None:
        done = call("--compare", tiny_model, plan, "--rounds", 2, *QUICK, "--threads", 1, "--json")
        document = done.document
        assert [document[name]["file"] for name in "ab"] == ["lamp.onnx", "lamp.trt"]
        assert document["a"]["mode"]["threads"] == 1
        assert document["a"]["onnx_sha256"] == document["b"]["onnx_sha256"]

    def test_a_plan_of_another_device_is_not_built_again(self, plan: Path, call: Call) -> None:
        record = load_record(plan)
        other = record.model_copy(
            update={"device": Device(gpu="NVIDIA H200", compute_capability="9.0")}
        )
        record_path(plan).write_text(other.to_json())
        before = plan.read_bytes()
        sentence = refused(call("--engine", plan, *QUICK))
        assert "was built for NVIDIA H200 (9.0), this is Orin (8.7)" in sentence
        assert "Build it here: build-engine" in sentence
        assert plan.read_bytes() == before

    def test_a_batch_that_the_plan_does_not_take(self, plan: Path, call: Call) -> None:
        sentence = refused(call("--engine", plan, *QUICK[:-1], 5))
        assert "--batch is 5, and lamp.trt takes 1 to 4 frames in one call" in sentence
        assert "build-engine lamp.onnx --batch 1:5:5" in sentence
        assert "--batch is 5" in refused(call("--compare", plan, plan, "--batch", 5))

    def test_a_plan_that_is_not_there(self, plan: Path, call: Call) -> None:
        plan.unlink()
        assert "lamp.trt does not exist" in refused(call("--engine", plan))
        assert not plan.exists()


class TestCompare:
    def other(self, folder: Path, **changes: Any) -> Path:
        folder.mkdir()
        return write_tiny_model(folder, make_manifest(**changes))

    def test_a_model_against_itself(self, tiny_model: Path, call: Call) -> None:
        words = ("--compare", tiny_model, tiny_model, "--rounds", 4, *QUICK)
        document = call(*words, "--json", "--samples").document
        assert (document["type"], document["batch"], document["rounds"]) == ("comparison", 2, 4)
        ratio, medians = document["ratio_b_over_a"], [document[n]["medians_ms"] for n in "ab"]
        assert ratio["pairs"] == pytest.approx(
            [b / a for a, b in zip(*medians, strict=True)], rel=2e-2
        )
        assert min(ratio["pairs"]) <= ratio["q1"] <= ratio["median"] + 1e-4
        assert 0 <= ratio["pairs_that_agree"] <= 4
        for at in "ab":
            blocks = document["samples_ms"][at]
            assert len(blocks) == 4
            assert document[at]["end_to_end"]["runs"] == sum(map(len, blocks))
        assert not [w for w in document["warnings"] if "different" in w]

    def test_what_people_read(self, tiny_model: Path, call: Call) -> None:
        done = call("--compare", tiny_model, tiny_model, "--rounds", 3, *QUICK)
        assert "A          lamp.onnx" in done.stdout and "B          lamp.onnx" in done.stdout
        assert "Pair by pair, medians of blocks" in done.stdout
        number = r"\d+\.\d{3}"
        said = (
            rf"B over A: median {number} \(quartiles {number} to {number}\); B is [a-z ]+ in \d of"
        )
        assert re.search(f"{said} 3 pairs", done.stdout)
        assert "round 3 of 3" in done.stderr

    @pytest.mark.parametrize(
        ("median", "words"),
        [
            (0.5, "is faster in 3"),
            (2.0, "is slower in 3"),
            (1.0, "is neither faster nor slower in"),
        ],
    )
    def test_which_one_is_faster(
        self,
        tiny_model: Path,
        call: Call,
        capsys: pytest.CaptureFixture[str],
        median: float,
        words: str,
    ) -> None:
        done = call("--compare", tiny_model, tiny_model, "--rounds", 3, *QUICK, "--json")
        ratio = {"median": median, "q1": 0.4, "q3": 2.5, "pairs": [median] * 3}
        found = {"ratio_b_over_a": ratio | {"pairs_that_agree": 3}}
        print_comparison(done.document | found)
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(
            f"B over A: median {median:.3f} (quartiles 0.400 to 2.500); B {words}"
        )

    def test_other_models_are_warned_of(self, tiny_model: Path, tmp_path: Path, call: Call) -> None:
        other = self.other(tmp_path / "other", **{"class": "cap"})
        done = call("--compare", tiny_model, other, "--rounds", 2, *QUICK, "--json")
        wanted = "the models are of different classes: lamp and cap"
        assert wanted in done.document["warnings"] and f"warning: {wanted}" in done.stderr

    def test_a_bank_goes_to_the_one_that_takes_it(
        self, tiny_model: Path, tmp_path: Path, call: Call
    ) -> None:
        graph, bank = write_tiny_graph(tmp_path), write_tiny_bank(tmp_path / "lamp.bank")
        done = call("--compare", tiny_model, graph, "--bank", bank, "--rounds", 2, *QUICK, "--json")
        assert done.document["a"]["bank"] is None
        assert done.document["b"]["bank"]["file"] == "lamp.bank"

    def test_a_bank_that_none_of_them_takes(
        self, tiny_model: Path, tmp_path: Path, call: Call
    ) -> None:
        bank = write_tiny_bank(tmp_path / "lamp.bank")
        sentence = refused(call("--compare", tiny_model, tiny_model, "--bank", bank, *QUICK))
        assert "holds its own memory bank" in sentence

    def test_an_option_that_none_of_them_has_a_use_for(self, tiny_model: Path, call: Call) -> None:
        sentence = refused(call("--compare", tiny_model, tiny_model, "--no-cuda-graph"))
        assert "--no-cuda-graph would do nothing with lamp.onnx" in sentence


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "neither --engine nor --compare is given"),
            (("--engine", "{}", "--compare", "{}", "{}"), "both --engine and --compare are given"),
            (("--engine", "{}", "--rounds", 3), "--rounds would do nothing without --compare"),
            (("--engine", "{}", "--samples"), "--samples would do nothing without --json"),
            (("--engine", "{}x"), "no engine runs 'lamp.onnxx'"),
            (("--engine", "no/lamp.onnx"), "no/lamp.onnx does not exist"),
            (("--compare", "{}", "no/lamp.onnx"), "no/lamp.onnx does not exist"),
            (("--engine", "{}", "--bank", "no.bank"), "holds its own memory bank"),
            (("--engine", "{}", "--device", 0), "--device would do nothing with lamp.onnx"),
            (("--engine", "{}", "--images", "no"), "cannot read no: No such file"),
        ],
    )
    def test_one_sentence(
        self, tiny_model: Path, call: Call, words: tuple[object, ...], said: str
    ) -> None:
        given = [str(word).format(tiny_model) for word in words]
        assert said in refused(call(*given))

    @pytest.mark.parametrize(
        "words",
        [
            ("--duration", "0"),
            ("--duration", "-1"),
            ("--duration", "nan"),
            ("--duration", "inf"),
            ("--duration", "long"),
            ("--warm-up", "-1"),
            ("--warm-up", "nan"),
            ("--iterations", "0"),
            ("--batch", "0"),
            ("--threads", "0"),
            ("--rounds", "1"),
            ("--provider", "tpu"),
            ("--no-transfers",),
        ],
    )
    def test_wrong_usage_exits_with_2(
        self, tiny_model: Path, call: Call, words: tuple[str, ...]
    ) -> None:
        done = call("--engine", tiny_model, *words)
        assert (done.status, done.stdout) == (2, "")
        assert words[0] in done.stderr and "Traceback" not in done.stderr

    def test_a_model_whose_file_was_altered(self, tiny_model: Path, call: Call) -> None:
        tiny_model.write_bytes(tiny_model.read_bytes() + b"\0")
        assert "lamp.onnx" in refused(call("--engine", tiny_model))

    def test_ctrl_c_ends_it_with_130_and_no_result(self, tiny_model: Path) -> None:
        command = [sys.executable, "-m", benchmark_engine.__name__, "--engine", str(tiny_model)]
        with subprocess.Popen(
            [*command, "--json", "--threads", "1", "--duration", "600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stderr is not None and program.stdout is not None
            assert "batch 1" in program.stderr.readline()
            program.send_signal(signal.SIGINT)
            rest, printed = program.stderr.read(), program.stdout.read()
        assert (program.returncode, printed) == (130, "")
        assert rest == "error: interrupted\n"


def keys_of(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*map(keys_of, document.values()))
    if isinstance(document, list):
        return set().union(*map(keys_of, document))
    return set()


class TestPage:
    def test_it_has_every_field(self, plan: Path, tiny_model: Path, call: Call) -> None:
        words = PAGE.read_text(encoding="utf-8")
        one = call("--engine", plan, *QUICK, "--json", "--samples").document
        two = call("--compare", tiny_model, plan, "--rounds", 2, *QUICK, "--json").document
        packages = set(one["machine"]["packages"])
        missing = {key for key in keys_of([one, two]) - packages if f"`{key}`" not in words}
        assert missing == set()

    def test_it_has_every_option(self, call: Call) -> None:
        words = PAGE.read_text(encoding="utf-8")
        for option in set(re.findall(r"--[a-z][a-z-]+", call("--help").stdout)) - {"--help"}:
            assert option in words, option


def test_strict_json_only(tiny_model: Path, call: Call) -> None:
    line = call("--engine", tiny_model, *QUICK, "--json").stdout
    assert line.count("\n") == 1 and str(tiny_model.parent) not in line
    json.loads(line, parse_constant=pytest.fail)


def test_a_model_under_another_name(tiny_model: Path, call: Call) -> None:
    """Digests are of the files, wherever they lie and whatever they are called."""
    other = tiny_model.with_name("copy.onnx")
    shutil.copy(tiny_model, other)
    write_manifest(other, make_manifest())
    document = call("--engine", other, *QUICK, "--json").document
    assert document["engine"]["sha256"] == model_digest(tiny_model)
