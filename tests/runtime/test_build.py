"""Plans built by TensorRT for RTX, which needs no GPU for it: files, progress, cache, refusals."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from patchline.runtime import contract
from patchline.runtime.contract import manifest_path, model_digest
from patchline.runtime.engine import build
from patchline.runtime.engine.build import Target, build_plan, check_batch
from patchline.runtime.engine.compat import load_flavour
from patchline.runtime.engine.plans import timing_cache
from patchline.runtime.engine.plans.build_lock import build_lock
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.engine.plans.build_progress import UNITS, make_monitor
from patchline.runtime.engine.plans.record import BuildOptions, Device, load_record
from patchline.runtime.engine.plans.timing_cache import timing_cache_path
from patchline.runtime.errors import BuildError, ConfigurationError, ManifestError, ModelError
from patchline.runtime.progress import Advance, SilentSteps

from .tiny_model import SIZE, make_manifest, write_manifest

trt = pytest.importorskip("tensorrt_rtx_bindings")


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def target() -> Target:
    return Target(load_flavour("tensorrt-rtx"), None, BuildOptions())


class Telling(SilentSteps):
    """Keeps what it is told, and may act on it."""

    def __init__(self, act: Callable[[int], None] = lambda done: None) -> None:
        self.told: list[int] = []
        self.act = act

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        def advance(done: int) -> None:
            self.told.append(done)
            self.act(done)

        yield advance


class TestPlan:
    def test_plan_and_record_appear_together(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        plan = tmp_path / "out" / "lamp.trt"
        record = build_plan(tiny_model, plan, target, SilentSteps())
        assert sorted(path.name for path in plan.parent.iterdir()) == ["lamp.trt", "lamp.trt.json"]
        assert load_record(plan) == record
        assert record.plan_sha256 == hashlib.sha256(plan.read_bytes()).hexdigest()
        assert record.onnx_sha256 == model_digest(tiny_model)
        assert (record.flavour, record.version) == ("tensorrt-rtx", trt.__version__)
        assert (record.device, record.options) == (None, BuildOptions())

    def test_without_a_gpu_the_plan_gives_none_and_not_a_crash(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        plan = tmp_path / "lamp.trt"
        build_plan(tiny_model, plan, target, SilentSteps())
        runtime = trt.Runtime(shared_log(trt))
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        assert engine is None or engine.num_io_tensors == 4

    def test_progress_rises_to_the_end(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        steps = Telling()
        build_plan(tiny_model, tmp_path / "lamp.trt", target, steps)
        assert steps.told == sorted(steps.told)
        assert steps.told[0] > 0 and steps.told[-1] <= UNITS
        assert steps.told[-1] > 0.9 * UNITS

    def test_options_change_what_is_built(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen in the builder's own configuration, just before it builds."""
        seen: dict[str, Any] = {}
        configure = build._configure

        def watch(trt_: Any, builder: Any, network: Any, config: Any, options: Any) -> None:
            configure(trt_, builder, network, config, options)
            seen["tf32"] = config.get_flag(trt.BuilderFlag.TF32)
            seen["workspace"] = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
            seen["profiles"] = config.num_optimization_profiles
            seen["typed"] = network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

        monkeypatch.setattr(build, "_configure", watch)
        flavour = load_flavour("tensorrt-rtx")
        for tf32 in (False, True):
            options = BuildOptions(batch=(1, 2, 4), workspace_bytes=64 << 20, tf32=tf32)
            record = build_plan(
                tiny_model, tmp_path / "l.trt", Target(flavour, None, options), SilentSteps()
            )
            assert record.options == options
            assert seen == {"tf32": tf32, "workspace": 64 << 20, "profiles": 1, "typed": True}


class Config:
    """A builder configuration that knows timing caches, as TensorRT's own does."""

    def __init__(self, accepted: bytes = b"mine") -> None:
        self.accepted, self.cache = accepted, b"unset"

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache not in (b"", self.accepted):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: memoryview(self.cache + b"+learned"))


class TestTimingCache:
    def test_what_a_build_learned_is_offered_to_the_next(self, tmp_path: Path) -> None:
        path, config = tmp_path / "deep" / "orin.timing", Config(b"+learned")
        timing_cache.attach(config, path)
        assert config.cache == b""
        timing_cache.keep(config, path)
        again = Config(b"+learned")
        timing_cache.attach(again, path)
        assert again.cache == b"+learned"

    def test_one_of_another_machine_is_said_and_replaced(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, config = tmp_path / "orin.timing", Config()
        path.write_bytes(b"another's")
        timing_cache.attach(config, path)
        assert config.cache == b"" and "not of this machine" in caplog.text

    def test_one_that_cannot_be_read_or_kept_does_not_stop_a_build(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "cache").write_text("a file in the way")
        config = Config()
        timing_cache.attach(config, tmp_path / "cache" / "orin.timing")
        timing_cache.keep(config, tmp_path / "cache" / "orin.timing")
        assert config.cache == b""
        assert "cannot be read" in caplog.text and "is not kept" in caplog.text

    def test_one_file_per_version_and_gpu(self, target: Target, cache_home: Path) -> None:
        orin = Device(gpu="Orin (nvgpu)", compute_capability="8.7")
        paths = {timing_cache_path(target.flavour, device) for device in (None, orin)}
        assert len(paths) == 2
        assert all(path.parent == cache_home / "patchline" for path in paths)
        assert all(trt.__version__ in path.name for path in paths)
        assert any("orin-nvgpu-8.7" in path.name for path in paths)

    def test_a_home_without_the_variable(
        self, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert timing_cache_path(target.flavour, None).parent == tmp_path / ".cache" / "patchline"

    def test_rtx_has_none_and_is_asked_for_none(
        self, tiny_model: Path, target: Target, tmp_path: Path, cache_home: Path
    ) -> None:
        """Its calls do nothing and warn that they are deprecated, which these tests would raise."""
        assert not target.flavour.has_timing_cache
        build_plan(tiny_model, tmp_path / "lamp.trt", target, SilentSteps())
        assert not cache_home.exists()


class TestInterrupt:
    def test_ctrl_c_ends_the_build_and_leaves_nothing(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        before = signal.getsignal(signal.SIGINT)
        steps = Telling(lambda done: os.kill(os.getpid(), signal.SIGINT))
        plan = tmp_path / "out" / "lamp.trt"
        with pytest.raises(KeyboardInterrupt):
            build_plan(tiny_model, plan, target, steps)
        assert not plan.parent.exists()
        assert signal.getsignal(signal.SIGINT) is before

    @pytest.mark.parametrize("what", ["interrupted", "refused"])
    def test_nothing_of_tensorrt_lives_on_with_the_error(
        self,
        what: str,
        tiny_model: Path,
        target: Target,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configure, made = build._configure, list[weakref.ref[Any]]()

        def watch(trt_: Any, builder: Any, network: Any, config: Any, options: Any) -> None:
            made.extend(map(weakref.ref, (builder, network, config)))
            configure(trt_, builder, network, config, options)
            if what == "refused":
                raise BuildError("no")

        monkeypatch.setattr(build, "_configure", watch)
        steps = Telling(lambda done: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises((KeyboardInterrupt, BuildError)):
            try:
                build_plan(tiny_model, tmp_path / "lamp.trt", target, steps)
            except BaseException:
                assert [found() for found in made] == [None] * 3
                raise

    def test_a_build_works_in_another_thread(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        plan = tmp_path / "lamp.trt"
        thread = threading.Thread(target=build_plan, args=(tiny_model, plan, target, SilentSteps()))
        thread.start()
        thread.join()
        assert plan.is_file()


def transposed(path: Path) -> None:
    """A graph that moves uint8 before it is cast, which TensorRT refuses (DESIGN section 5)."""
    nodes = [
        helper.make_node("Transpose", [contract.FRAMES], ["moved"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], [contract.ANOMALY_MAP], "cast", to=TensorProto.FLOAT),
    ]
    frames = helper.make_tensor_value_info(contract.FRAMES, TensorProto.UINT8, ["b", SIZE, SIZE, 3])
    result = helper.make_tensor_value_info(
        contract.ANOMALY_MAP, TensorProto.FLOAT, ["b", 3, SIZE, SIZE]
    )
    graph = helper.make_graph(nodes, "turned", [frames], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(bytes(model.SerializeToString()))


class TestRefused:
    def test_a_refused_node_is_named(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        transposed(tiny_model)
        write_manifest(tiny_model, make_manifest())
        with pytest.raises((ModelError, BuildError)) as error:
            build_plan(tiny_model, tmp_path / "lamp.trt", target, SilentSteps())
        assert "turn" in str(error.value)
        assert not (tmp_path / "lamp.trt").exists()

    def test_an_unknown_operator_is_named(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        model = onnx.load(tiny_model)
        model.graph.node[1].op_type = "Imaginary"
        model.graph.node[1].name = "dreamt"
        tiny_model.write_bytes(model.SerializeToString())
        write_manifest(tiny_model, make_manifest())
        with pytest.raises(ModelError, match=r"refuses lamp\.onnx: node dreamt \(Imaginary\)"):
            build_plan(tiny_model, tmp_path / "lamp.trt", target, SilentSteps())

    def test_a_missing_model(self, target: Target, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="export-model writes it"):
            build_plan(tmp_path / "no.onnx", tmp_path / "no.trt", target, SilentSteps())

    def test_a_missing_manifest(self, tiny_model: Path, target: Target, tmp_path: Path) -> None:
        manifest_path(tiny_model).unlink()
        with pytest.raises(ManifestError, match="is missing"):
            build_plan(tiny_model, tmp_path / "lamp.trt", target, SilentSteps())

    def test_another_file_than_the_manifests(
        self, tiny_model: Path, target: Target, tmp_path: Path
    ) -> None:
        tiny_model.write_bytes(tiny_model.read_bytes() + b" ")
        with pytest.raises(ModelError, match=r"not the file that lamp\.json was written for"):
            build_plan(tiny_model, tmp_path / "lamp.trt", target, SilentSteps())

    @pytest.mark.parametrize("batch", [(0, 1, 8), (2, 1, 8), (1, 8, 4)])
    def test_a_batch_profile_that_does_not_ascend(self, batch: tuple[int, int, int]) -> None:
        with pytest.raises(ConfigurationError, match="smallest:usual:largest"):
            check_batch(batch)

    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            ("Error Code 2: OutOfMemory (no further information)", "lower --batch or --workspace"),
            ("Error Code 4: shapes", "shapes"),
        ],
    )
    def test_no_plan_says_why_and_what_to_try(
        self, tmp_path: Path, target: Target, reason: str, words: str
    ) -> None:
        text = build._failure(tmp_path / "lamp.onnx", target, ["first", reason])
        assert text.startswith("TensorRT for RTX") and reason in text and words in text


class TestLog:
    def test_errors_are_kept_and_the_last_come_first_to_hand(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = shared_log(trt)
        log.errors = []
        with caplog.at_level(logging.DEBUG):
            for number in range(12):
                log.log(trt.ILogger.Severity.ERROR, f"failure {number} ")
            log.log(trt.ILogger.Severity.VERBOSE, "noise")
        assert log.errors[-1] == "failure 11" and len(log.errors) == 8
        assert "noise" not in caplog.text

    def test_a_second_builder_is_nothing_to_warn_of(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            both = trt.Builder(shared_log(trt)), trt.Builder(shared_log(trt))
        assert all(both) and caplog.text == ""

    def test_a_collection_in_the_log_finds_no_lock_held(self) -> None:
        """With a logger of its own, the second builder waits for itself for ever."""
        program = (
            "import gc, logging",
            "import tensorrt_rtx_bindings as trt",
            "from patchline.runtime.engine.plans import build_log",
            "class Collector(logging.Handler):",
            "    def emit(self, record): gc.collect()",
            "build_log.logger.addHandler(Collector())",
            "build_log.logger.setLevel(logging.DEBUG)",
            "class Left: pass",
            "left = Left()",
            "left.itself, left.builder = left, trt.Builder(build_log.shared_log(trt))",
            "del left",
            "trt.Builder(build_log.shared_log(trt))",
        )
        subprocess.run([sys.executable, "-c", "\n".join(program)], check=True, timeout=120)


class TestProgress:
    def test_phases_within_phases_share_their_parents_step(self) -> None:
        told: list[int] = []
        monitor = make_monitor(trt, told.append, threading.Event())
        monitor.phase_start("all", None, 2)
        monitor.phase_start("first", "all", 4)
        for step in range(4):
            assert monitor.step_complete("first", step)
        monitor.phase_finish("first")
        monitor.step_complete("all", 0)
        monitor.step_complete("all", 1)
        monitor.phase_finish("all")
        assert told == [125, 250, 375, 500, 1000]

    def test_it_asks_to_stop_once_cancelled(self) -> None:
        cancelled = threading.Event()
        monitor = make_monitor(trt, lambda done: None, cancelled)
        monitor.phase_start("all", None, 2)
        assert monitor.step_complete("all", 0)
        cancelled.set()
        assert not monitor.step_complete("all", 1)


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    plan, order, waiting = tmp_path / "lamp.trt", [], threading.Event()

    def second() -> None:
        with build_lock(plan, waiting.set):
            order.append("second")

    with build_lock(plan, lambda: pytest.fail("nobody is before the first")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
