"""ONNX Runtime with a bank beside the graph: one product at a time, and all or nothing."""

from __future__ import annotations

import collections
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.runtime import contract
from patchline.runtime.bank import load_bank, save_bank
from patchline.runtime.contract import OnnxFile, load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine
from patchline.runtime.errors import (
    ConfigurationError,
    EngineError,
    FrameError,
    ManifestError,
    ModelError,
)
from patchline.runtime.graph import load_any_manifest

from .tiny_model import (
    SIZE,
    make_manifest,
    tiny_bank,
    tiny_graph_bytes,
    tiny_model_bytes,
    write_manifest,
    write_tiny_bank,
    write_tiny_graph,
)

LAMP, BULB = 30.0, 90.0
"""The brightness that each product's bank takes away."""
STATISTIC = 0.0
"""The smallest of the tiny bank's statistics, which is added to it."""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """``graph.onnx``, with ``lamp.bank`` and ``bulb.bank`` beside it."""
    write_tiny_bank(tmp_path / "lamp.bank", LAMP, threshold=100.0)
    write_tiny_bank(tmp_path / "bulb.bank", BULB, threshold=50.0)
    return write_tiny_graph(tmp_path)


def frames(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def expected_map(value: float, count: int = 2) -> np.ndarray:
    brightness: np.ndarray = frames(count).mean(axis=3) - (value + STATISTIC)
    return brightness


class TestProducts:
    @pytest.mark.parametrize("count", [1, 3])
    def test_the_bank_decides_what_is_computed(self, graph: Path, count: int) -> None:
        for name, value in (("lamp", LAMP), ("bulb", BULB)):
            with open_engine(graph, bank=graph.with_name(f"{name}.bank")) as engine:
                found = engine.infer(frames(count))
            expected = expected_map(value, count)
            np.testing.assert_allclose(found.anomaly_map, expected, atol=1e-3)
            np.testing.assert_allclose(found.image_score, expected.max((1, 2)), atol=1e-3)
            for array in (found.image_score, found.anomaly_map, found.influence_map):
                assert array.dtype == np.float32

    def test_the_manifest_is_the_products(self, graph: Path) -> None:
        with open_engine(graph, provider="cpu", bank=graph.with_name("bulb.bank")) as engine:
            assert engine.manifest.class_name == "bulb"
            assert engine.manifest.threshold.value == 50.0
            assert engine.description.endswith("CPUExecutionProvider")

    def test_another_bank_counts_from_the_next_frame(self, graph: Path) -> None:
        with open_engine(graph, bank=graph.with_name("lamp.bank")) as engine:
            first = engine.infer(frames())
            before = first.anomaly_map.copy()
            engine.load_bank(graph.with_name("bulb.bank"))
            assert engine.manifest.class_name == "bulb"
            second = engine.infer(frames())
            engine.load_bank(graph.with_name("lamp.bank"))
            third = engine.infer(frames())
        np.testing.assert_array_equal(first.anomaly_map, before)
        np.testing.assert_allclose(second.anomaly_map, expected_map(BULB), atol=1e-3)
        np.testing.assert_array_equal(third.anomaly_map, before)

    def test_banks_may_differ_in_rows(self, graph: Path) -> None:
        save_bank(tiny_bank("large", BULB, rows=320), graph.with_name("large.bank"))
        with open_engine(graph, bank=graph.with_name("lamp.bank")) as engine:
            engine.load_bank(graph.with_name("large.bank"))
            found = engine.infer(frames())
        np.testing.assert_allclose(found.anomaly_map, expected_map(BULB), atol=1e-3)

    def test_no_frame_meets_parts_of_two(self, graph: Path) -> None:
        """Inference in one thread, exchange in another: each result is of one product.

        The tiny graph takes half of its value from ``memory_bank`` and half from ``bank_squares``.
        """
        banks = [graph.with_name(name) for name in ("lamp.bank", "bulb.bank")]
        allowed = [float(expected_map(value, 1).max()) for value in (LAMP, BULB)]
        stop, failures = threading.Event(), []

        def exchange(engine: Any) -> None:
            try:
                for turn in itertools.count():
                    engine.load_bank(banks[turn % 2])
                    if stop.is_set():
                        return
            except Exception as error:  # handed to the test below
                failures.append(error)

        with open_engine(graph, threads=1, bank=banks[0]) as engine:
            thread = threading.Thread(target=exchange, args=(engine,))
            thread.start()
            seen: collections.Counter[float] = collections.Counter()
            try:
                while not failures and min(seen[value] for value in allowed) < 100:
                    score = float(engine.infer(frames(1)).image_score[0])
                    seen[min(allowed, key=lambda value: abs(score - value))] += 1
                    assert min(abs(score - value) for value in allowed) < 1e-3
            finally:
                stop.set()
                thread.join()
        assert failures == []


class TestRefused:
    @pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "another graph's"])
    def test_a_bank_that_is_refused_changes_nothing(self, graph: Path, damage: str) -> None:
        bad = graph.with_name("bad.bank")
        content = graph.with_name("bulb.bank").read_bytes()
        if damage == "truncated":
            bad.write_bytes(content[:-5])
        elif damage == "altered":
            bad.write_bytes(content[:-1] + b"\x01")
        elif damage == "another graph's":
            bank = load_bank(graph.with_name("bulb.bank"))
            other = bank.manifest.backbone.model_copy(update={"weights_sha256": "f" * 64})
            save_bank(bank.with_manifest(bank.manifest.model_copy(update={"backbone": other})), bad)
        with open_engine(graph, bank=graph.with_name("lamp.bank")) as engine:
            before = engine.infer(frames())
            with pytest.raises(ModelError, match=r"bad\.bank"):
                engine.load_bank(bad)
            assert engine.manifest.class_name == "lamp"
            np.testing.assert_array_equal(engine.infer(frames()).anomaly_map, before.anomaly_map)
        with pytest.raises(ModelError, match=r"bad\.bank"):
            open_engine(graph, bank=bad)

    def test_a_graph_without_a_bank(self, graph: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"graph\.onnx holds no memory bank.*--bank"):
            open_engine(graph)

    def test_a_bank_for_a_model_with_its_own(self, graph: Path, tiny_model: Path) -> None:
        bank = graph.with_name("lamp.bank")
        with pytest.raises(ConfigurationError, match=r"lamp\.onnx holds its own memory bank"):
            open_engine(tiny_model, bank=bank)
        with open_engine(tiny_model) as engine:
            before = engine.infer(frames())
            with pytest.raises(ConfigurationError, match=r"lamp\.onnx holds its own memory bank"):
                engine.load_bank(bank)
            np.testing.assert_array_equal(engine.infer(frames()).anomaly_map, before.anomaly_map)

    def test_a_closed_engine(self, graph: Path) -> None:
        bank = graph.with_name("lamp.bank")
        engine = open_engine(graph, bank=bank)
        engine.close()
        engine.close()
        for act in (lambda: engine.load_bank(bank), lambda: engine.infer(frames())):
            with pytest.raises(EngineError, match="the engine is closed"):
                act()

    def test_frames_that_do_not_fit(self, graph: Path) -> None:
        with (
            open_engine(graph, bank=graph.with_name("lamp.bank")) as engine,
            pytest.raises(FrameError, match="expected"),
        ):
            engine.infer(np.zeros((1, SIZE, SIZE + 1, 3), np.uint8))

    def test_no_room_for_a_bank_is_said_and_changes_nothing(
        self, graph: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import onnxruntime

        def full(*args: object) -> None:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 99")

        with open_engine(graph, bank=graph.with_name("lamp.bank")) as engine:
            before = engine.infer(frames())
            with monkeypatch.context() as patch:
                patch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", full)
                with pytest.raises(EngineError, match=r"no room for bulb\.bank \(32 rows\): Fail"):
                    engine.load_bank(graph.with_name("bulb.bank"))
            np.testing.assert_array_equal(engine.infer(frames()).anomaly_map, before.anomaly_map)


def rewrite(graph: Path, content: bytes) -> None:
    """Another file under the graph's name, with its true digest in the manifest beside it."""
    graph.write_bytes(content)
    manifest = load_any_manifest(manifest_path(graph))
    file = OnnxFile(file=graph.name, sha256=contract.model_digest(graph))
    manifest.model_copy(update={"onnx": file}).save(manifest_path(graph))


class TestGraphFiles:
    def open(self, graph: Path) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(graph, bank=graph.with_name("lamp.bank"))

    def test_another_digest(self, graph: Path) -> None:
        graph.write_bytes(graph.read_bytes() + b"\0")
        with pytest.raises(ManifestError, match=r"onnx\.sha256 is"):
            self.open(graph)

    def test_a_manifest_that_was_edited_names_the_field(self, graph: Path) -> None:
        path = manifest_path(graph)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"neighbors": 2}))
        with pytest.raises(ManifestError, match=r"graph\.json was edited\. neighbors: 2, not 1"):
            self.open(graph)

    def test_a_manifest_of_a_whole_model_beside_a_graph(self, graph: Path) -> None:
        write_manifest(graph, make_manifest())
        with pytest.raises(ManifestError, match="differ in whether the graph holds a memory bank"):
            open_engine(graph)

    def test_a_whole_model_beside_a_graphs_manifest(self, graph: Path) -> None:
        rewrite(graph, tiny_model_bytes({contract.METADATA_KEY: make_manifest().to_json()}))
        with pytest.raises(ManifestError, match="differ in whether the graph holds a memory bank"):
            self.open(graph)

    def test_a_graph_without_its_inputs(self, graph: Path) -> None:
        text = load_any_manifest(manifest_path(graph)).model_copy(update={"onnx": None}).to_json()
        rewrite(graph, tiny_model_bytes({contract.METADATA_KEY: text}))
        with pytest.raises(ModelError, match=r"has inputs \['frames'\], expected \['frames', 'mem"):
            self.open(graph)

    def test_a_file_without_metadata(self, graph: Path) -> None:
        rewrite(graph, tiny_graph_bytes({}))
        with pytest.raises(ModelError, match=r"holds no patchline\.manifest"):
            self.open(graph)

    def test_another_resize(self, graph: Path) -> None:
        manifest = load_any_manifest(manifest_path(graph))
        preprocessing = manifest.preprocessing.model_copy(update={"resize": "nearest"})
        changed = manifest.model_copy(update={"preprocessing": preprocessing, "onnx": None})
        changed.save(manifest_path(graph))
        rewrite(graph, tiny_graph_bytes({contract.METADATA_KEY: changed.to_json()}))
        with pytest.raises(ManifestError, match=r"preprocessing\.resize is 'nearest'"):
            self.open(graph)

    def test_a_missing_manifest(self, graph: Path) -> None:
        manifest_path(graph).unlink()
        with pytest.raises(ManifestError, match=r"graph\.json is missing"):
            self.open(graph)


def test_a_graphs_manifest_is_no_models(graph: Path) -> None:
    with pytest.raises(ManifestError, match="schema_version"):
        load_manifest(manifest_path(graph))
