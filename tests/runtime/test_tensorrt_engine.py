"""Plans on a fake GPU: order, reuse, release, banks, and everything that can fail."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchline.runtime import contract
from patchline.runtime.bank import save_bank
from patchline.runtime.contract import manifest_path
from patchline.runtime.engine.base import EngineFacts, Prediction, Wait
from patchline.runtime.engine.cuda.gpu import open_gpu
from patchline.runtime.engine.cuda.resources import Resources
from patchline.runtime.engine.plans.record import load_record, record_path
from patchline.runtime.engine.tensorrt import TensorRTEngine
from patchline.runtime.errors import (
    ConfigurationError,
    DeviceLostError,
    EngineError,
    FrameError,
    ManifestError,
    ModelError,
)
from patchline.runtime.graph import BANK_SQUARES, MEMORY_BANK

from .fake_cuda import MOODS, Fault, World, install
from .fake_tensorrt import make_flavour, tensors, write_plan
from .tiny_model import SIZE, make_manifest, tiny_bank, write_tiny_bank, write_tiny_graph

ROWS = (32, 32, 96)


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def check(found: Prediction, given: np.ndarray, value: float = 0.0) -> None:
    """Against the tiny model, computed here."""
    expected = given.mean(axis=3, dtype=np.float32) - np.float32(value)
    np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.image_score, expected.max(axis=(1, 2)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.influence_map, expected / 2, rtol=1e-5, atol=1e-4)


@pytest.fixture
def plan(tiny_model: Path) -> Path:
    return write_plan(tiny_model)


@pytest.fixture
def graph_plan(tmp_path: Path) -> Path:
    return write_plan(write_tiny_graph(tmp_path), rows=ROWS)


@pytest.fixture
def banks(tmp_path: Path) -> dict[str, Path]:
    values = {"lamp": 10.0, "bolt": 60.0}
    return {name: write_tiny_bank(tmp_path / f"{name}.bank", v) for name, v in values.items()}


Open = Callable[..., TensorRTEngine]


@pytest.fixture
def open_on(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a plan on a world of its own; ``.world`` of the function is the last one."""

    def opened(plan: Path, world: World | None = None, **options: Any) -> TensorRTEngine:
        world = world or World()
        opened.world = world  # type: ignore[attr-defined]
        install(monkeypatch, world, graphs=options.pop("graphs", True))
        gpu = open_gpu(0)
        close = Resources.close

        def closing(resources: Resources) -> None:
            world.released_before_closing = len(world.released)
            close(resources)

        with monkeypatch.context() as patch:
            patch.setattr(Resources, "close", closing)
            engine = TensorRTEngine(plan, flavour=make_flavour(world), gpu=gpu, **options)
        engine._plan._resources.close = partial(closing, engine._plan._resources)  # type: ignore[method-assign]
        return engine

    return opened


class TestOrder:
    @pytest.mark.parametrize("mood", MOODS)
    @pytest.mark.parametrize("graphs", [False, True])
    @pytest.mark.parametrize("seed", range(8))
    def test_two_in_flight_in_any_order_that_cuda_allows(
        self, plan: Path, open_on: Open, mood: str, graphs: bool, seed: int
    ) -> None:
        world = World(seed, mood)
        with open_on(plan, world, cuda_graph=graphs) as engine:
            given = [frames(1 + index % 4, index) for index in range(9)]
            before = engine.submit(given[0])
            for index in range(1, 9):
                after = engine.submit(given[index])
                check(before.result(), given[index - 1])
                before = after
            check(before.result(), given[-1])
        world.assert_clean()

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        seed=st.integers(0, 2**32),
        mood=st.sampled_from(MOODS),
        steps=st.lists(st.integers(-3, 9), min_size=1, max_size=12),
    )
    def test_submitted_and_taken_in_any_order(
        self, plan: Path, open_on: Open, seed: int, mood: str, steps: list[int]
    ) -> None:
        """Above 0: submit so many frames; else take the result of one of those that are left."""
        world = World(seed, mood)
        with open_on(plan, world) as engine:
            left = []
            for number, step in enumerate(steps):
                if step > 0:
                    given = frames(step, number)
                    left.append((engine.submit(given), given))
                    given_before = given.copy()
                    given[:] = 0  # its own from here on, says the contract
                    left[-1] = (left[-1][0], given_before)
                elif left:
                    pending, given = left.pop(step % len(left))
                    check(pending.result(), given)
            for pending, given in left:
                check(pending.result(), given)
        world.assert_clean()

    @pytest.mark.parametrize("name", ["make_wait", "record", "synchronize"])
    def test_the_fake_finds_a_wait_that_is_missing(
        self, plan: Path, open_on: Open, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Of these tests themselves: without its events the engine is wrong."""
        from patchline.runtime.engine.cuda.objects import Event

        monkeypatch.setattr(Event, name, lambda self, *stream: None)
        wrong = 0
        for seed in range(30):
            with open_on(plan, World(seed, "priority")) as engine:
                given = frames(2, seed)
                found = engine.infer(given)
                wrong += not np.array_equal(found.anomaly_map, given.mean(3, dtype=np.float32))
        assert wrong > 3

    def test_the_next_upload_does_not_wait_for_the_download(
        self, plan: Path, open_on: Open
    ) -> None:
        """Three streams overlap: copy, compute and copy."""
        overlapped = 0
        for seed in range(20):
            world = World(seed, "lazy")
            with open_on(plan, world, cuda_graph=False) as engine:
                first, second = engine.submit(frames(1)), engine.submit(frames(1, 1))
                first.result(), second.result()
            copies = [name for name in world.done if name in ("upload", "download")]
            overlapped += copies[:2] == ["upload", "upload"]
        assert overlapped > 3

    def test_the_scores_come_first(self, plan: Path, open_on: Open) -> None:
        sizes: list[int] = []
        with open_on(plan, cuda_graph=False) as engine:
            stream = engine._plan.streams.download
            download = stream.download
            stream.download = lambda buffer, array: (  # type: ignore[method-assign]
                sizes.append(array.nbytes),
                download(buffer, array),
            )[1]
            engine.infer(frames(2))
        assert sizes == [8, 2 * SIZE * SIZE * 4, 2 * SIZE * SIZE * 4]

    def test_a_third_submit_keeps_the_result_of_the_oldest(self, plan: Path, open_on: Open) -> None:
        with open_on(plan) as engine:
            pending = [engine.submit(frames(1, seed)) for seed in range(5)]
            for seed in (4, 0, 2, 1, 3):
                check(pending[seed].result(), frames(1, seed))
                check(pending[seed].result(), frames(1, seed))


class TestBatches:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 25])
    def test_more_than_the_plan_takes_and_fewer(
        self, tiny_model: Path, open_on: Open, count: int
    ) -> None:
        plan = write_plan(tiny_model, (3, 4, 8))
        with open_on(plan) as engine:
            engine.infer(255 - frames(8))  # what would be left over
            check(engine.infer(frames(count)), frames(count))

    def test_a_batch_is_filled_up_with_black_frames(self, tiny_model: Path, open_on: Open) -> None:
        with open_on(write_plan(tiny_model, (4, 4, 4)), cuda_graph=False) as engine:
            for seed in range(2):  # both slots
                engine.infer(frames(4, seed))
            assert engine.infer(frames(1)).anomaly_map.shape == (1, SIZE, SIZE)
            host = engine._plan.slots[0]._host[contract.FRAMES].array
            assert host[0].any() and not host[1:].any()

    def test_the_description(self, tiny_model: Path, open_on: Open) -> None:
        plan = write_plan(tiny_model, (1, 1, 8))
        base = "TensorRT 10.3.0, Orin (8.7), fp32, batch 1 to 8"
        with open_on(plan) as engine:
            assert engine.description == f"{base}, CUDA graphs"
        with open_on(plan, cuda_graph=False) as engine:
            assert engine.description == base
        with open_on(plan, graphs=False) as engine:  # cuda.bindings is not installed
            assert engine.description == base
            check(engine.infer(frames(3)), frames(3))


class TestReuse:
    @pytest.mark.parametrize("graphs", [False, True])
    def test_a_thousand_frames_allocate_nothing(
        self, plan: Path, open_on: Open, graphs: bool
    ) -> None:
        makes = ("cuMemAlloc", "cuMemHostAlloc", "cuEventCreate", "cuStreamCreate")
        makes += ("create_execution_context", "set_input_shape", "cuGraphInstantiate")
        world = World(mood="eager")
        with open_on(plan, world, cuda_graph=graphs) as engine:
            engine.infer(frames(1)), engine.infer(frames(1))
            live, calls = world.live.copy(), len(world.calls)
            for _ in range(1000):
                engine.infer(frames(1))
            assert world.live == live
            assert not {name for name in world.calls[calls:] if name in makes}

    def test_graphs_are_bounded_by_batch_sizes_and_slots(self, plan: Path, open_on: Open) -> None:
        world = World()
        with open_on(plan, world) as engine:
            for count in [1, 2, 3, 4] * 10:
                check(engine.infer(frames(count, count)), frames(count, count))
            assert world.calls.count("cuGraphInstantiate") <= 4 * 2
            assert world.calls.count("cuGraphLaunch") >= 30
        world.assert_clean()

    def test_with_graphs_nothing_is_enqueued_a_second_time(self, plan: Path, open_on: Open) -> None:
        world = World()
        with open_on(plan, world) as engine:
            for _ in range(10):
                engine.infer(frames(2))
            assert world.calls.count("execute_async_v3") == 2 * 2  # plain and captured, per slot

    @pytest.mark.parametrize("step", ["BeginCapture", "EndCapture", "Instantiate"])
    def test_a_capture_that_fails_is_said_once_and_changes_nothing(
        self, plan: Path, open_on: Open, caplog: pytest.LogCaptureFixture, step: str
    ) -> None:
        probe = World()
        with open_on(plan, probe) as engine:
            engine.infer(frames(1))
        at = 1 + next(i for i, name in enumerate(probe.calls) if name.endswith(step))
        world = World(fault=Fault(at))
        with open_on(plan, world) as engine:
            for seed in range(6):
                check(engine.infer(frames(1, seed)), frames(1, seed))
            assert "CUDA graphs" not in engine.description
        assert caplog.text.count("CUDA graphs are off") == 1
        assert world.calls.count("cuGraphLaunch") == 0
        world.assert_clean()


class TestRelease:
    def test_in_order_and_once(self, plan: Path, open_on: Open) -> None:
        world = World()
        engine = open_on(plan, world)
        pending = engine.submit(frames(3))
        engine.close()
        engine.close()
        world.assert_clean()
        assert world.released[-1] == "cuda context"
        with pytest.raises(EngineError, match="the engine is closed"):
            pending.result()

    @pytest.mark.parametrize("is_lost", [False, True])
    @pytest.mark.parametrize("text", ["invalid argument", "out of memory"])
    def test_whatever_call_fails(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open, is_lost: bool, text: str
    ) -> None:
        """Every call in turn, from opening to the last frame with the second bank."""

        def work(world: World) -> None:
            with open_on(graph_plan, world, bank=banks["lamp"]) as engine:
                pending = [engine.submit(frames(2, seed)) for seed in range(3)]
                engine.load_bank(banks["bolt"])
                pending.append(engine.submit(frames(2, 3)))
                for seed, (one, value) in enumerate(zip(pending, (10, 10, 10, 60), strict=True)):
                    check(one.result(), frames(2, seed), value)
                for count in (1, 2, 1):
                    check(engine.infer(frames(count)), frames(count), 60)

        probe = World(mood="lazy")
        work(probe)
        probe.assert_clean()
        failed = 0
        for at in range(1, len(probe.calls) + 1):
            world = World(mood="lazy", fault=Fault(at, text, is_lost))
            try:
                work(world)
            except (EngineError, ModelError) as error:
                failed += 1
                assert not is_lost or isinstance(error, DeviceLostError) or at <= 2, error
            world.assert_clean(in_order=not is_lost), at
        assert failed > 0.8 * len(probe.calls)

    @pytest.mark.parametrize("kind", ["memory", "pinned", "graph", "cuda context"])
    def test_when_releasing_one_thing_fails(
        self, plan: Path, open_on: Open, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        world = World(fails_on_release=kind)
        with open_on(plan, world) as engine:
            engine.infer(frames(1))
        assert "invalid argument" in caplog.text
        world.live["graph"] -= kind == "graph"  # the half that the failure left
        assert world.retained == 0 and not any(
            count for name, count in world.live.items() if name != "graph"
        )

    @pytest.mark.parametrize("mood", MOODS)
    def test_a_frame_that_failed_leaves_the_engine_usable(
        self, plan: Path, open_on: Open, mood: str
    ) -> None:
        """Whichever call of its submit it was."""
        for at in range(1, 12):
            world = World(at, mood)
            with open_on(plan, world, cuda_graph=False) as engine:
                engine.infer(frames(1)), engine.infer(frames(1))
                first = engine.submit(frames(1, 1))
                world.fault = Fault(len(world.calls) + at)
                with pytest.raises(EngineError):
                    engine.submit(frames(1, 2))
                check(first.result(), frames(1, 1))
                for seed in range(3, 6):
                    check(engine.submit(frames(1, seed)).result(), frames(1, seed))
            world.assert_clean()


class TestThread:
    @pytest.mark.parametrize("use", ["infer", "submit", "result", "load_bank", "close"])
    def test_another_thread_is_refused(self, plan: Path, open_on: Open, use: str) -> None:
        with open_on(plan) as engine:
            pending = engine.submit(frames(1))
            uses: dict[str, Callable[[], Any]] = {
                "infer": lambda: engine.infer(frames(1)),
                "submit": lambda: engine.submit(frames(1)),
                "result": pending.result,
                "load_bank": lambda: engine.load_bank(plan),
                "close": engine.close,
            }
            caught: list[EngineError] = []

            def run() -> None:
                with pytest.raises(EngineError) as error:
                    uses[use]()
                caught.append(error.value)

            thread = threading.Thread(target=run, name="dashboard")
            thread.start()
            thread.join()
            assert "'MainThread' and is used in 'dashboard'" in str(caught[0])
            check(pending.result(), frames(1))


class TestBank:
    @pytest.mark.parametrize("mood", MOODS)
    @pytest.mark.parametrize("seed", range(5))
    def test_frames_in_flight_keep_the_old_bank(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open, mood: str, seed: int
    ) -> None:
        world = World(seed, mood)
        with open_on(graph_plan, world, bank=banks["lamp"]) as engine:
            for name, value, other, new in [("lamp", 10, "bolt", 60), ("bolt", 60, "lamp", 10)]:
                assert engine.manifest.class_name == name
                for _ in range(3):
                    check(engine.infer(frames(2)), frames(2), value)
                pending = [engine.submit(frames(1 + at, at)) for at in range(2)]
                engine.load_bank(banks[other])
                assert engine.manifest.class_name == other
                pending.append(engine.submit(frames(3, 2)))
                for at, expected in enumerate([value, value, new]):
                    check(pending[at].result(), frames(1 + at, at), expected)
        world.assert_clean()

    def test_switching_leaves_no_memory_behind(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open, tmp_path: Path
    ) -> None:
        large = tmp_path / "large.bank"
        save_bank(tiny_bank("large", 30.0, rows=96), large)
        world = World()
        with open_on(graph_plan, world, bank=banks["lamp"]) as engine:
            engine.infer(frames(1)), engine.infer(frames(1))
            free, live = world.free_bytes, world.live["context"]
            for _ in range(20):
                engine.load_bank(large)
                check(engine.infer(frames(1)), frames(1), 30)
                engine.load_bank(banks["lamp"])
            assert (world.free_bytes, world.live["context"]) == (free, live)
        world.assert_clean()

    @pytest.mark.parametrize("rows", [128, 160])
    def test_more_rows_than_the_plan_takes(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open, tmp_path: Path, rows: int
    ) -> None:
        large = tmp_path / "large.bank"
        save_bank(tiny_bank("large", 30.0, rows=rows), large)
        with open_on(graph_plan, bank=banks["lamp"]) as engine:
            with pytest.raises(EngineError, match=rf"has {rows} rows.*32 to 96.*--bank-rows"):
                engine.load_bank(large)
            assert engine.manifest.class_name == "lamp"
            check(engine.infer(frames(1)), frames(1), 10)
        with pytest.raises(EngineError, match="--bank-rows"):
            open_on(graph_plan, bank=large)

    def test_a_switch_that_fails_anywhere_changes_nothing(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open
    ) -> None:
        probe = World()
        with open_on(graph_plan, probe, bank=banks["lamp"]) as engine:
            engine.infer(frames(1)), engine.submit(frames(2))
            start = len(probe.calls)
            engine.load_bank(banks["bolt"])
            end = len(probe.calls)
        assert end - start > 10
        for at in range(start + 1, end + 1):
            world = World(fault=Fault(at, "out of memory"))
            with open_on(graph_plan, world, bank=banks["lamp"]) as engine:
                engine.infer(frames(1))
                pending = engine.submit(frames(2))
                free = world.free_bytes
                with pytest.raises(EngineError):
                    engine.load_bank(banks["bolt"])
                assert engine.manifest.class_name == "lamp" and world.free_bytes == free
                check(pending.result(), frames(2), 10)
                check(engine.infer(frames(3)), frames(3), 10)
                engine.load_bank(banks["bolt"])
                check(engine.infer(frames(3)), frames(3), 60)
            world.assert_clean()

    def test_a_damaged_bank_and_one_of_another_graph(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.bank"
        bank = tiny_bank("other")
        save_bank(bank.with_manifest(make_manifest(score="distance")), other)
        cut = tmp_path / "cut.bank"
        cut.write_bytes(banks["bolt"].read_bytes()[:-4])
        with open_on(graph_plan, bank=banks["lamp"]) as engine:
            with pytest.raises(ManifestError, match="score"):
                engine.load_bank(other)
            with pytest.raises(ModelError, match=r"cut\.bank"):
                engine.load_bank(cut)
            check(engine.infer(frames(1)), frames(1), 10)

    def test_a_bank_that_is_missing_or_not_wanted(
        self, plan: Path, graph_plan: Path, banks: dict[str, Path], open_on: Open
    ) -> None:
        with pytest.raises(ConfigurationError, match="--bank"):
            open_on(graph_plan)
        open_on.world.assert_clean()  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match="holds its own"):
            open_on(plan, bank=banks["lamp"])
        with open_on(plan) as engine, pytest.raises(ConfigurationError, match="holds its own"):
            engine.load_bank(banks["lamp"])


class TestMemory:
    def test_no_room_to_open_says_what_was_asked(self, plan: Path, open_on: Open) -> None:
        with pytest.raises(EngineError, match=r"no room for frames of 4 frames: .*MiB.*--batch"):
            open_on(plan, World(total_bytes=1000))
        open_on.world.assert_clean()  # type: ignore[attr-defined]

    def test_no_room_for_a_bank(
        self, graph_plan: Path, banks: dict[str, Path], open_on: Open
    ) -> None:
        world = World()
        with open_on(graph_plan, world, bank=banks["lamp"]) as engine:
            world.total_bytes -= world.free_bytes
            with pytest.raises(EngineError, match=r"memory_bank of bolt\.bank"):
                engine.load_bank(banks["bolt"])
            check(engine.infer(frames(1)), frames(1), 10)


class TestFiles:
    def test_a_missing_plan(self, plan: Path, open_on: Open) -> None:
        plan.unlink()
        with pytest.raises(ModelError, match=r"does not exist\. Build it here: build-engine lamp"):
            open_on(plan)

    @pytest.mark.parametrize("change", [lambda old: old[:-3], lambda old: old + b" "])
    def test_a_plan_that_was_altered_never_reaches_tensorrt(
        self, plan: Path, open_on: Open, change: Callable[[bytes], bytes]
    ) -> None:
        plan.write_bytes(change(plan.read_bytes()))
        with pytest.raises(ModelError, match="cut short or altered"):
            open_on(plan)
        world = open_on.world  # type: ignore[attr-defined]
        assert "deserialize_cuda_engine" not in world.calls
        world.assert_clean()

    def test_a_plan_of_another_model(self, plan: Path, open_on: Open) -> None:
        record = load_record(plan).model_copy(update={"onnx_sha256": "a" * 64})
        record_path(plan).write_text(record.to_json())
        with pytest.raises(ModelError, match=r"was not built from the model.*lamp\.json"):
            open_on(plan)

    def test_another_way_to_resize(self, plan: Path, open_on: Open) -> None:
        path = manifest_path(plan)
        document = json.loads(path.read_text())
        document["preprocessing"]["resize"] = "nearest"
        path.write_text(json.dumps(document))
        with pytest.raises(ManifestError, match=r"preprocessing\.resize is 'nearest'"):
            open_on(plan)

    def test_one_that_tensorrt_does_not_open(self, plan: Path, open_on: Open) -> None:
        probe = World()
        open_on(plan, probe).close()
        world = World(fault=Fault(probe.calls.index("deserialize_cuda_engine") + 1))
        with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0 does not open .*magic tag"):
            open_on(plan, world)
        world.assert_clean()

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            (contract.FRAMES, {"dtype": "FLOAT"}, "frames is input float32"),
            (
                contract.FRAMES,
                {"shape": [-1, 3, 32, 32]},
                r"expected input uint8 \[-1, 32, 32, 3\]",
            ),
            (contract.ANOMALY_MAP, {"mode": "INPUT"}, "anomaly_map is input"),
            (contract.ANOMALY_MAP, {"dtype": "HALF"}, "anomaly_map is output float16"),
            (contract.INFLUENCE_MAP, {"shape": [-1, 16, 16]}, "influence_map is output"),
            (contract.IMAGE_SCORE, None, "image_score is missing"),
        ],
    )
    def test_one_with_other_inputs_and_outputs(
        self, tiny_model: Path, open_on: Open, name: str, change: Any, words: str
    ) -> None:
        spec = tensors((1, 1, 4))
        if change is None:
            del spec[name]
        else:
            spec[name] |= change
        with pytest.raises(ModelError, match=f"is not the plan of its manifest.*{words}"):
            open_on(write_plan(tiny_model, changed=spec))
        open_on.world.assert_clean()  # type: ignore[attr-defined]

    def test_an_unknown_tensor(self, tiny_model: Path, open_on: Open) -> None:
        spec = tensors((1, 1, 4)) | {"mask": tensors((1, 1, 4))[contract.IMAGE_SCORE]}
        with pytest.raises(ModelError, match="nothing is known of mask"):
            open_on(write_plan(tiny_model, changed=spec))

    def test_outputs_whose_size_shows_late(self, tiny_model: Path, open_on: Open) -> None:
        spec = tensors((1, 1, 4))
        spec[contract.ANOMALY_MAP]["shape"] = [-1, -1, SIZE]
        with pytest.raises(ModelError, match=r"anomaly_map of 1 frames is \[1, -1, 32\]"):
            open_on(write_plan(tiny_model, changed=spec))
        open_on.world.assert_clean()  # type: ignore[attr-defined]

    def test_a_bank_of_another_dimension(
        self, tmp_path: Path, banks: dict[str, Path], open_on: Open
    ) -> None:
        spec = tensors((1, 1, 4), ROWS)
        spec[MEMORY_BANK]["shape"] = [-1, 2]
        del spec[BANK_SQUARES]
        plan = write_plan(write_tiny_graph(tmp_path), changed=spec)
        with pytest.raises(ModelError, match=r"memory_bank is input float32 \[-1, 2\]"):
            open_on(plan, bank=banks["lamp"])

    def test_an_input_that_the_score_does_not_need_may_be_gone(
        self, tmp_path: Path, banks: dict[str, Path], open_on: Open
    ) -> None:
        spec = tensors((1, 1, 4), ROWS)
        del spec["bank_statistics"]
        plan = write_plan(write_tiny_graph(tmp_path), changed=spec)
        with open_on(plan, bank=banks["lamp"]) as engine:
            assert set(engine._plan.io.bank) == {MEMORY_BANK, BANK_SQUARES}


def test_the_gpu_is_closed_with_the_engine_and_without_a_word(
    plan: Path, open_on: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_on(plan) as engine:
        engine.infer(frames(1))
    with pytest.raises(EngineError, match="the GPU is closed"), engine._gpu.current():
        pass
    assert not caplog.text


TAKES_MS = {"upload": 2.0, "compute": 5.0, "graph": 5.0, "download": 1.0}


class TestPhases:
    @pytest.mark.parametrize("mood", MOODS)
    @pytest.mark.parametrize("graphs", [False, True])
    def test_each_phase_is_what_its_work_took(
        self, plan: Path, open_on: Open, mood: str, graphs: bool
    ) -> None:
        world = World(5, mood, takes_ms=TAKES_MS)
        with open_on(plan, world, cuda_graph=graphs) as engine:
            for count in (1, 3, 3, 3, 1, 4):
                found = engine.time_phases(frames(count))
                assert (found.h2d_ms, found.compute_ms, found.d2h_ms) == (2.0, 5.0, 3.0)
                assert found.enqueue_ms > 0
            assert ("graph" in world.done) is graphs
        world.assert_clean()

    @pytest.mark.parametrize("mood", MOODS)
    def test_what_was_in_flight_is_done_before_and_kept(
        self, plan: Path, open_on: Open, mood: str
    ) -> None:
        world = World(3, mood, takes_ms=TAKES_MS)
        with open_on(plan, world) as engine:
            given = [frames(2, seed) for seed in range(2)]
            pending = [engine.submit(each) for each in given]
            assert engine.time_phases(frames(4)).compute_ms == 5.0
            before = world.done[: world.done.index("timed mark")]
            assert before.count("download") == 2 * 3
            for one, each in zip(pending, given, strict=True):
                check(one.result(), each)
            check(engine.infer(frames(1, 9)), frames(1, 9))
        world.assert_clean()

    def test_calls_that_are_not_timed_carry_no_timed_marks(self, plan: Path, open_on: Open) -> None:
        world = World()
        with open_on(plan, world) as engine:
            engine.time_phases(frames(1))
            assert world.done.count("timed mark") == 6
            for _ in range(5):
                engine.infer(frames(1))
            assert world.done.count("timed mark") == 6

    def test_a_hundred_calls_make_the_events_of_the_first(self, plan: Path, open_on: Open) -> None:
        world = World(mood="eager")
        with open_on(plan, world) as engine:
            engine.time_phases(frames(1)), engine.time_phases(frames(1))
            live = world.live.copy()
            for _ in range(100):
                engine.time_phases(frames(1))
            assert world.live == live
        world.assert_clean()

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_whatever_call_fails(self, plan: Path, open_on: Open, is_lost: bool) -> None:
        def work(world: World) -> None:
            with open_on(plan, world) as engine:
                before = len(world.calls)
                engine.time_phases(frames(2)), engine.time_phases(frames(2))
                work.span = range(before + 1, len(world.calls) + 1)  # type: ignore[attr-defined]

        work(World())
        span = work.span  # type: ignore[attr-defined]
        assert len(span) > 40
        for at in span:
            world = World(fault=Fault(at, is_lost=is_lost))
            with contextlib.suppress(EngineError):  # not where a capture failed
                work(world)
            world.assert_clean(in_order=False)

    def test_refuses_more_frames_than_one_call_and_another_thread(
        self, plan: Path, open_on: Open
    ) -> None:
        with open_on(plan) as engine:
            with pytest.raises(FrameError, match="5 frames, and the plan takes 4 at once"):
                engine.time_phases(frames(5))
            with pytest.raises(FrameError, match="expected uint8"):
                engine.time_phases(frames(1)[:, :8])
        with pytest.raises(EngineError, match="is closed"):
            engine.time_phases(frames(1))

    @pytest.mark.parametrize("graphs", [False, True])
    def test_facts(self, plan: Path, open_on: Open, graphs: bool) -> None:
        with open_on(plan, cuda_graph=graphs) as engine:
            assert engine.facts == EngineFacts(
                runtime="TensorRT",
                version="10.3.0",
                provider="TensorRT",
                gpu="Orin (8.7)",
                threads=None,
                cuda_graph=graphs,
                wait=Wait.CUDA,
                least_batch=1,
                most_batch=4,
                in_flight=2,
            )
