"""A plan that may be run: when it is taken, when it is built again, and who waits for whom."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine.build import Target
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.options import TensorRTOptions
from patchline.runtime.engine.plans import wanted_plan as wanted_module
from patchline.runtime.engine.plans.build_lock import build_lock
from patchline.runtime.engine.plans.ready_plan import ready_plan
from patchline.runtime.engine.plans.record import (
    BuildOptions,
    Device,
    PlanRecord,
    load_record,
    record_path,
)
from patchline.runtime.engine.plans.wanted_plan import wanted_plan
from patchline.runtime.errors import (
    BuildError,
    ConfigurationError,
    EngineError,
    ManifestError,
    ModelError,
)
from patchline.runtime.progress import SilentSteps, Steps

from .tiny_model import write_manifest, write_tiny_graph

ORIN = Device(gpu="Orin", compute_capability="8.7")
H200 = Device(gpu="NVIDIA H200", compute_capability="9.0")
OLD, NEW = Flavour("tensorrt", None, "10.3.0"), Flavour("tensorrt", None, "11.4.0")
FORBIDDEN = TensorRTOptions(build=False)


@dataclass
class Builder:
    """Stands in for TensorRT: writes a plan of a few bytes, and counts."""

    targets: list[Target] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, onnx: Path, plan: Path, target: Target, steps: Steps) -> PlanRecord:
        if self.error is not None:
            raise self.error
        assert onnx.is_file()
        self.targets.append(target)
        manifest = wanted_module.load_any_manifest(manifest_path(onnx))
        assert manifest.onnx is not None
        content = f"plan {len(self.targets)}".encode()
        record = PlanRecord(
            onnx_sha256=manifest.onnx.sha256,
            plan_sha256=hashlib.sha256(content).hexdigest(),
            flavour=target.flavour.name,
            version=target.flavour.version,
            device=target.device,
            options=target.options,
        )
        plan.write_bytes(content)
        record_path(plan).write_text(record.to_json())
        return record


@dataclass
class Bench:
    """A folder with the tiny model, and calls of ``ready_plan`` in it."""

    plan: Path
    builder: Builder
    said: list[str] = field(default_factory=list)

    def ready(
        self,
        tensorrt: TensorRTOptions = TensorRTOptions(),  # noqa: B008 (frozen)
        flavour: Flavour = OLD,
        device: Device | None = ORIN,
    ) -> PlanRecord:
        return ready_plan(self.plan, flavour, device, tensorrt, SilentSteps(), self.said.append)

    @property
    def builds(self) -> int:
        return len(self.builder.targets)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    found = Builder()
    monkeypatch.setattr(wanted_module, "build_plan", found)
    return found


@pytest.fixture
def bench(tiny_model: Path, builder: Builder) -> Bench:
    return Bench(tiny_model.with_suffix(".trt"), builder)


@pytest.fixture
def graph_bench(tmp_path: Path, builder: Builder) -> Bench:
    return Bench(write_tiny_graph(tmp_path).with_suffix(".trt"), builder)


class TestTaken:
    def test_it_is_built_once_and_then_taken(self, bench: Bench) -> None:
        record = bench.ready()
        assert record == load_record(bench.plan) == bench.ready()
        assert (bench.builds, len(bench.said)) == (1, 1)
        assert bench.said[0].startswith(f"{bench.plan} does not exist. It is built now")

    def test_it_needs_no_onnx_file(self, bench: Bench) -> None:
        record = bench.ready()
        bench.plan.with_suffix(".onnx").unlink()
        assert bench.ready(FORBIDDEN) == bench.ready() == record

    def test_a_plan_without_a_gpu_is_one_for_no_gpu(self, bench: Bench) -> None:
        assert bench.ready(device=None).device is None
        bench.ready(device=None)
        assert bench.builds == 1
        bench.ready(device=ORIN)
        assert bench.builds == 2

    def test_the_default_rows_do_not_build_for_ever(self, graph_bench: Bench) -> None:
        assert graph_bench.ready().options.bank_rows == (32, 2048, 8192)
        explicit = BuildOptions(bank_rows=(32, 2048, 8192))
        for options in (None, BuildOptions(), explicit):
            graph_bench.ready(TensorRTOptions(options=options))
        assert graph_bench.builds == 1


class TestBuiltAgain:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"flavour": NEW}, "was built with tensorrt 10.3.0, this machine has tensorrt 11.4.0"),
            ({"device": H200}, "was built for Orin (8.7), this is NVIDIA H200 (9.0)"),
            (
                {"tensorrt": TensorRTOptions(options=BuildOptions(tf32=True))},
                "was built with tf32 False, asked is True",
            ),
        ],
        ids=["version", "GPU", "options"],
    )
    def test_what_does_not_fit_is_said_and_built(
        self, bench: Bench, change: dict[str, Any], words: str
    ) -> None:
        bench.ready()
        bench.said.clear()
        bench.ready(**change)
        assert bench.builds == 2
        (sentence,) = bench.said
        assert sentence.startswith(f"{bench.plan} {words}")
        bench.ready(**change)
        assert bench.builds == 2

    def test_all_reasons_are_one_sentence(self, bench: Bench) -> None:
        bench.ready()
        bench.ready(flavour=NEW, device=H200)
        assert bench.said[1].count("; it was built") == 1

    def test_a_model_that_was_exported_again(self, bench: Bench) -> None:
        bench.ready()
        onnx = bench.plan.with_suffix(".onnx")
        onnx.write_bytes(onnx.read_bytes() + b"\x00")
        write_manifest(onnx, load_manifest(manifest_path(onnx)))
        bench.ready()
        assert bench.builds == 2 and "another ONNX file" in bench.said[1]

    @pytest.mark.parametrize("content", [b"", b"plan", b"plan 2"], ids=["empty", "cut", "altered"])
    def test_a_plan_that_is_not_whole(self, bench: Bench, content: bytes) -> None:
        bench.ready()
        bench.plan.write_bytes(content)
        bench.ready()
        assert bench.builds == 2 and "was cut short or altered" in bench.said[1]

    @pytest.mark.parametrize(
        ("text", "words"), [(None, "has no lamp.trt.json"), ("{", "has no valid record")]
    )
    def test_a_plan_without_a_record(self, bench: Bench, text: str | None, words: str) -> None:
        bench.ready()
        path = record_path(bench.plan)
        path.unlink() if text is None else path.write_text(text)
        bench.ready()
        assert bench.builds == 2 and words in bench.said[1]

    def test_it_keeps_what_its_owner_chose(self, bench: Bench) -> None:
        chosen = BuildOptions(batch=(2, 4, 4), workspace_bytes=1 << 30, tf32=True)
        bench.ready(TensorRTOptions(options=chosen))
        assert bench.ready(flavour=NEW).options == chosen
        assert bench.builder.targets[1] == Target(NEW, ORIN, chosen)

    def test_rows_that_the_new_model_cannot_have_are_not_kept(self, bench: Bench) -> None:
        """The model of this name had its bank outside, and now holds it."""
        record = bench.ready()
        rows = record.options.model_copy(update={"bank_rows": (32, 64, 96)})
        older = record.model_copy(update={"options": rows, "onnx_sha256": "0" * 64})
        record_path(bench.plan).write_text(older.to_json())
        assert bench.ready().options == BuildOptions()

    def test_a_build_that_fails_leaves_the_error_to_the_caller(self, bench: Bench) -> None:
        bench.builder.error = BuildError("no memory")
        with pytest.raises(BuildError, match="no memory"):
            bench.ready()
        bench.builder.error = None
        bench.ready()  # the lock was given back


class TestRefused:
    def test_no_plan(self, bench: Bench) -> None:
        with pytest.raises(EngineError) as error:
            bench.ready(FORBIDDEN)
        onnx = bench.plan.with_suffix(".onnx")
        assert str(error.value) == (
            f"{bench.plan} does not exist. Build it here: build-engine {onnx}"
        )
        assert (bench.builds, bench.said) == (0, [])

    def test_another_machines_plan_names_both_and_the_command(self, bench: Bench) -> None:
        options = BuildOptions(batch=(1, 4, 16), workspace_bytes=2 << 30, tf32=True)
        bench.ready(TensorRTOptions(options=options))
        with pytest.raises(EngineError) as error:
            bench.ready(TensorRTOptions(build=False, device=1), flavour=NEW, device=H200)
        assert str(error.value) == (
            f"{bench.plan} was built with tensorrt 10.3.0, this machine has tensorrt 11.4.0; it "
            "was built for Orin (8.7), this is NVIDIA H200 (9.0). Build it here: build-engine "
            f"{bench.plan.with_suffix('.onnx')} --batch 1:4:16 --workspace 2147483648 --tf32 "
            "--device 1"
        )
        assert bench.builds == 1

    def test_an_altered_plan_is_never_run(self, bench: Bench) -> None:
        bench.ready()
        bench.plan.write_bytes(b"other")
        with pytest.raises(EngineError, match="cut short or altered"):
            bench.ready(FORBIDDEN)

    def test_a_build_without_the_onnx_file(self, bench: Bench) -> None:
        bench.ready()
        onnx = bench.plan.with_suffix(".onnx")
        onnx.unlink()
        with pytest.raises(ModelError) as error:
            bench.ready(device=H200)
        assert f"this is NVIDIA H200 (9.0); and {onnx}, which it is built from" in str(error.value)

    def test_no_manifest(self, bench: Bench) -> None:
        manifest_path(bench.plan).unlink()
        with pytest.raises(ManifestError, match=r"lamp\.json is missing"):
            bench.ready()

    def test_a_manifest_that_knows_no_file(self, bench: Bench) -> None:
        manifest = load_manifest(manifest_path(bench.plan))
        manifest.model_copy(update={"onnx": None}).save(manifest_path(bench.plan))
        with pytest.raises(ManifestError, match="onnx: the field is missing"):
            bench.ready()

    def test_options_that_cannot_be(self, bench: Bench) -> None:
        with pytest.raises(ConfigurationError, match="smallest:usual:largest"):
            bench.ready(TensorRTOptions(options=BuildOptions(batch=(4, 1, 1))))
        with pytest.raises(ConfigurationError, match="holds its own memory bank"):
            bench.ready(TensorRTOptions(options=BuildOptions(bank_rows=(32, 32, 32))))


def test_a_command_for_another_place_and_flavour_can_be_typed(tiny_model: Path) -> None:
    target = Target(Flavour("tensorrt-rtx", None, "1.7"), None, BuildOptions())
    plan = tiny_model.parent / "a plan.trt"
    wanted = wanted_plan(plan, tiny_model, manifest_path(tiny_model), target)
    assert wanted.command == f"build-engine {tiny_model} --out '{plan}' --flavour tensorrt-rtx"


def test_a_command_for_a_graph_names_its_rows(graph_bench: Bench) -> None:
    with pytest.raises(EngineError, match=r"--bank-rows 32:2048:8192$"):
        graph_bench.ready(FORBIDDEN)


class TestTwoAtOnce:
    def test_who_waits_takes_the_others_plan(self, bench: Bench) -> None:
        results: list[PlanRecord] = []
        waiting = threading.Event()

        def say(sentence: str) -> None:
            bench.said.append(sentence)
            if "waiting" in sentence:
                waiting.set()

        def second() -> None:
            options = TensorRTOptions()
            results.append(ready_plan(bench.plan, OLD, ORIN, options, SilentSteps(), say))

        onnx = bench.plan.with_suffix(".onnx")
        with build_lock(bench.plan, pytest.fail):
            thread = threading.Thread(target=second)
            thread.start()
            assert waiting.wait(30)
            built = bench.builder(
                onnx, bench.plan, Target(OLD, ORIN, BuildOptions()), SilentSteps()
            )
        thread.join(30)
        assert results == [built]
        assert bench.builds == 1
        assert bench.said == [f"another process is building {bench.plan}; waiting for it"]

    def test_who_waits_builds_what_the_other_left_undone(self, bench: Bench) -> None:
        """A process that holds the lock dies: the system gives the lock back."""
        code = (
            "import sys, pathlib\n"
            "from patchline.runtime.engine.plans.build_lock import build_lock\n"
            "with build_lock(pathlib.Path(sys.argv[1]), exit):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, bench.plan],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            wanted = wanted_plan(
                bench.plan,
                bench.plan.with_suffix(".onnx"),
                manifest_path(bench.plan),
                Target(OLD, ORIN, BuildOptions()),
            )

            def kill_when_waited_for(sentence: str) -> None:
                bench.said.append(sentence)
                other.kill()

            record = wanted.build(SilentSteps(), kill_when_waited_for)
        assert record == load_record(bench.plan)
        assert "waiting" in bench.said[0] and "does not exist" in bench.said[1]
