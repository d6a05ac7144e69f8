"""The bank file: it comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime import bank as module
from patchline.runtime.bank import Bank, check_fits, check_given, load_bank, save_bank
from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ConfigurationError, ManifestError, ModelError, WriteError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    MEMORY_BANK,
    GraphManifest,
    graph_of,
)

from .tiny_model import make_manifest, make_trained_manifest

Tensors = dict[str, np.ndarray]


def make_bank(rows: int = 60, neighbors: int = 2, filled: int = 64, *, width: int = 5) -> Bank:
    """A random bank of the score ``patchcore``, which has all four tensors."""
    random = np.random.default_rng(rows)
    described = {"rows": rows, "dimension": width, "neighbors": neighbors}
    manifest = make_manifest(
        score="patchcore", memory_bank=described | {"coreset_ratio": 0.5, "seed": 0}
    )
    memory_bank = np.zeros((filled, width), np.float32)
    memory_bank[:rows] = random.normal(size=(rows, width))
    squares = np.full(filled, 1e30, np.float32)
    squares[:rows] = (memory_bank[:rows] ** 2).sum(1)
    return Bank(
        manifest,
        {
            MEMORY_BANK: memory_bank,
            BANK_SQUARES: squares,
            BANK_STATISTICS: np.array([1.0, 0.5, 1e-4], np.float32),
            BANK_NEIGHBORS: random.integers(0, rows, (filled, 9)),
        },
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """``lamp.bank``, to be damaged at will."""
    save_bank(make_bank(), tmp_path / "lamp.bank")
    return tmp_path / "lamp.bank"


class TestRoundTrip:
    def test_tensors_and_manifest_come_back_bit_by_bit(self, path: Path) -> None:
        expected, found = make_bank(), load_bank(path)
        assert found.manifest == expected.manifest and found.rows == 64
        assert found.tensors.keys() == expected.tensors.keys()
        for name, array in expected.tensors.items():
            assert found.tensors[name].dtype == array.dtype
            np.testing.assert_array_equal(found.tensors[name], array)

    def test_any_host_reads_the_inputs_by_name(self, path: Path) -> None:
        plain = safetensors.numpy.load_file(path)
        np.testing.assert_array_equal(plain[MEMORY_BANK], make_bank().tensors[MEMORY_BANK])

    def test_a_view_is_written_as_its_copy(self, tmp_path: Path) -> None:
        bank = make_bank()
        backwards = {name: array[::-1][::-1] for name, array in bank.tensors.items()}
        wide = np.asfortranarray(bank.tensors[MEMORY_BANK])
        save_bank(Bank(bank.manifest, backwards | {MEMORY_BANK: wide}), tmp_path / "a.bank")
        np.testing.assert_array_equal(load_bank(tmp_path / "a.bank").tensors[MEMORY_BANK], wide)

    def test_another_threshold_leaves_the_tensors(self, path: Path) -> None:
        before = load_bank(path)
        limits = before.manifest.threshold.model_copy(update={"value": 7.0})
        save_bank(
            before.with_manifest(before.manifest.model_copy(update={"threshold": limits})), path
        )
        after = load_bank(path)
        assert after.manifest.threshold.value == 7.0
        np.testing.assert_array_equal(after.tensors[MEMORY_BANK], before.tensors[MEMORY_BANK])

    def test_a_write_that_fails_leaves_the_old_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def full(*args: object) -> None:
            raise WriteError("the disk is full")

        monkeypatch.setattr(module, "write_atomically", full)
        with pytest.raises(WriteError):
            save_bank(make_bank(50), path)
        assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]

    @given(rows=st.integers(2, 130), neighbors=st.integers(1, 9), width=st.integers(1, 6))
    @settings(max_examples=40, deadline=None)
    def test_banks_of_any_size(
        self, tmp_path_factory: pytest.TempPathFactory, rows: int, neighbors: int, width: int
    ) -> None:
        filled = max(-(-rows // 32), neighbors) * 32
        file = tmp_path_factory.mktemp("banks") / "any.bank"
        save_bank(make_bank(rows, neighbors, filled, width=width), file)
        if rows < neighbors:
            with pytest.raises(ModelError, match=f"{rows} rows are fewer than {neighbors} neigh"):
                load_bank(file)
        else:
            assert load_bank(file).rows == filled


class TestDamage:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"lamp\.bank does not exist"):
            load_bank(tmp_path / "lamp.bank")

    @pytest.mark.parametrize("kept", [0, 4, 8, 100, 2000, -1])
    def test_a_truncated_file(self, path: Path, kept: int) -> None:
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ModelError, match=r"cannot read .*lamp\.bank.*Copy it again"):
            load_bank(path)

    def test_bytes_after_the_end(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(ModelError, match="cannot read"):
            load_bank(path)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 an archive of some kind", b"{}" * 50])
    def test_a_file_of_another_kind(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot read"):
            load_bank(path)

    def test_any_altered_byte_of_the_tensors(self, path: Path) -> None:
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for at in (start, start + 1, (start + len(content)) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[at] ^= 1
            path.write_bytes(changed)
            with pytest.raises(ModelError, match="was altered or damaged"):
                load_bank(path)

    def test_a_state_of_the_training_side(self, path: Path) -> None:
        tensors = {MEMORY_BANK: np.zeros((2, 2), np.float32)}
        manifest = {"manifest": make_manifest().to_json()}
        safetensors.numpy.save_file(tensors, path, manifest)
        with pytest.raises(ModelError, match="was altered or damaged"):  # it has no digest
            load_bank(path)

    def test_tensors_without_a_manifest(self, path: Path) -> None:
        safetensors.numpy.save_file(dict(make_bank().tensors), path)
        with pytest.raises(ModelError, match=r"is no Patchline bank.*--bank external"):
            load_bank(path)

    def test_tensors_of_something_else(self, path: Path) -> None:
        safetensors.numpy.save_file({"conv1": np.zeros(3, np.float32)}, path, {"manifest": "{}"})
        with pytest.raises(ModelError, match=r"is no Patchline bank: it holds no memory_bank"):
            load_bank(path)

    def test_a_bank_without_axes(self, path: Path) -> None:
        tensors = dict(make_bank().tensors) | {MEMORY_BANK: np.array(1.0, np.float32)}
        safetensors.numpy.save_file(tensors, path, {"manifest": make_bank().manifest.to_json()})
        with pytest.raises(ModelError, match="is no Patchline bank"):
            load_bank(path)

    def test_a_newer_manifest_asks_for_an_upgrade(self, path: Path) -> None:
        document = json.loads(make_bank().manifest.to_json()) | {"schema_version": 2}
        write_with(path, json.dumps(document))
        with pytest.raises(ManifestError, match=r"lamp\.bank: schema_version is 2.*Upgrade"):
            load_bank(path)

    def test_an_edited_manifest_names_the_field(self, path: Path) -> None:
        document = json.loads(make_bank().manifest.to_json())
        document["threshold"]["value"] = "high"
        write_with(path, json.dumps(document))
        with pytest.raises(ManifestError, match=r"threshold\.value"):
            load_bank(path)


def write_with(path: Path, text: str) -> None:
    """Exchange the manifest's text, with the tensors and their digest as they were."""
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, metadata | {"manifest": text})


def drop(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def change(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({name: how(tensors[name])})


def put(name: str, at: tuple[int, ...], value: float) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors[name].__setitem__(at, value)


class TestContents:
    """Files that are whole, digest and all, and hold what cannot be."""

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (drop(BANK_SQUARES), "it holds .*, expected bank_neighbors, bank_squares"),
            (drop(BANK_STATISTICS), "expected bank_neighbors, bank_squares, bank_statistics"),
            (drop(BANK_NEIGHBORS), "it holds bank_squares, bank_statistics, memory_bank, exp"),
            (lambda t: t.update(more=np.zeros(1, np.float32)), "it holds .*more"),
            (change(MEMORY_BANK, lambda a: a.astype(np.float16)), "memory_bank is float16"),
            (change(MEMORY_BANK, lambda a: a.astype(np.float64)), "memory_bank is float64"),
            (change(MEMORY_BANK, lambda a: a[:, :4]), r"memory_bank is float32 \[64, 4\], exp"),
            (change(MEMORY_BANK, lambda a: a[0]), r"memory_bank is float32 \[5\], expected"),
            (change(MEMORY_BANK, lambda a: a[:32]), r"bank_squares is float32 \[64\]"),
            (change(BANK_SQUARES, lambda a: a[:63]), r"bank_squares is float32 \[63\]"),
            (change(BANK_SQUARES, lambda a: a[:, None]), r"bank_squares is float32 \[64, 1\]"),
            (change(BANK_STATISTICS, lambda a: a[:2]), r"bank_statistics is float32 \[2\]"),
            (change(BANK_NEIGHBORS, lambda a: a.astype(np.int32)), "bank_neighbors is int32"),
            (change(BANK_NEIGHBORS, lambda a: a[:, :8]), r"bank_neighbors is int64 \[64, 8\]"),
            (change(BANK_NEIGHBORS, lambda a: a[:, 0]), r"bank_neighbors is int64 \[64\]"),
            (put(MEMORY_BANK, (3, 2), np.nan), "NaN or infinite"),
            (put(BANK_SQUARES, (63,), np.inf), "NaN or infinite"),
            (put(BANK_STATISTICS, (0,), np.nan), "NaN or infinite"),
            (put(BANK_NEIGHBORS, (0, 0), -1), "bank_neighbors names rows that are not there"),
            (put(BANK_NEIGHBORS, (0, 0), 60), "bank_neighbors names rows that are not there"),
        ],
    )
    def test_each_is_named(self, path: Path, damage: Callable[[Tensors], Any], says: str) -> None:
        bank = make_bank()
        tensors = dict(bank.tensors)
        damage(tensors)
        save_bank(Bank(bank.manifest, tensors), path)
        with pytest.raises(ModelError, match=says):
            load_bank(path)

    @pytest.mark.parametrize(
        ("rows", "neighbors", "filled", "says"),
        [
            (60, 2, 60, "it has 60 rows, expected a multiple of 32 and at least 64"),
            (60, 2, 65, "it has 65 rows, expected a multiple of 32 and at least 64"),
            (60, 3, 64, "it has 64 rows, expected a multiple of 32 and at least 96"),
            (3, 4, 128, "3 rows are fewer than 4 neighbours"),
        ],
    )
    def test_rows_that_the_search_cannot_take(
        self, path: Path, rows: int, neighbors: int, filled: int, says: str
    ) -> None:
        save_bank(make_bank(rows, neighbors, filled), path)
        with pytest.raises(ModelError, match=says):
            load_bank(path)

    def test_fewer_rows_than_the_manifest_says(self, path: Path) -> None:
        bank = make_bank(60, 2, 64)
        described = bank.manifest.memory_bank.model_copy(update={"rows": 70})
        save_bank(
            bank.with_manifest(bank.manifest.model_copy(update={"memory_bank": described})), path
        )
        with pytest.raises(ModelError, match="64 rows, expected a multiple of 32 and at least 70"):
            load_bank(path)

    def test_the_manifest_of_a_model_without_a_bank(self, path: Path) -> None:
        save_bank(make_bank().with_manifest(make_trained_manifest(score="patchcore")), path)
        with pytest.raises(ManifestError, match="of the method reverse-distillation and has no me"):
            load_bank(path)

    def test_another_score_has_no_neighbours_of_rows(self, path: Path) -> None:
        bank = make_bank()
        save_bank(bank.with_manifest(bank.manifest.model_copy(update={"score": "distance"})), path)
        with pytest.raises(ModelError, match="expected bank_squares, bank_statistics, memory_b"):
            load_bank(path)


class TestFit:
    def test_a_bank_of_the_graph_passes(self) -> None:
        bank = make_bank()
        check_fits(bank, graph_of(bank.manifest), Path("graph.onnx"))

    @pytest.mark.parametrize(
        ("update", "says"),
        [
            ({"score": "distance"}, "score: patchcore, not distance"),
            ({"dimension": 4}, "dimension: 5, not 4"),
            ({"neighbors": 9}, "neighbors: 2, not 9"),
            (
                {"model_size": make_manifest().model_size.model_copy(update={"height": 64})},
                "model_size: 32 x 32, not 64 x 32",
            ),
            (
                {
                    "backbone": make_manifest().backbone.model_copy(
                        update={"weights_sha256": "b" * 64}
                    )
                },
                "weights_sha256: 0000",
            ),
        ],
    )
    def test_a_bank_of_another_graph_names_the_fields(
        self, update: dict[str, Any], says: str
    ) -> None:
        bank = replace(make_bank(), path=Path("lamp.bank"))
        graph = graph_of(bank.manifest).model_copy(update=update)
        with pytest.raises(ManifestError) as error:
            check_fits(bank, graph, Path("graph.onnx"))
        assert str(error.value).startswith(f"lamp.bank is not for graph.onnx. {says}")

    def test_all_of_them_at_once(self) -> None:
        bank = make_bank()
        graph = graph_of(bank.manifest).model_copy(update={"dimension": 4, "neighbors": 9})
        with pytest.raises(ManifestError, match=r"dimension: 5, not 4; neighbors: 2, not 9"):
            check_fits(bank, graph, Path("graph.onnx"))


class TestGiven:
    GRAPH: GraphManifest = graph_of(make_manifest())
    MODEL: Manifest = make_manifest()

    def test_a_graph_with_a_bank_and_a_model_without(self) -> None:
        check_given(self.GRAPH, Path("lamp.bank"), Path("graph.onnx"))
        check_given(self.MODEL, None, Path("lamp.onnx"))

    def test_a_graph_without_a_bank(self) -> None:
        with pytest.raises(ConfigurationError, match=r"graph\.onnx holds no memory bank: give"):
            check_given(self.GRAPH, None, Path("graph.onnx"))

    def test_a_bank_for_a_model_that_has_no_use_for_one(self) -> None:
        with pytest.raises(ConfigurationError, match=r"lamp\.onnx needs no memory bank, so --bank"):
            check_given(make_trained_manifest(), Path("lamp.bank"), Path("lamp.onnx"))

    def test_a_bank_for_a_model_with_its_own(self) -> None:
        with pytest.raises(ConfigurationError, match=r"lamp\.onnx holds its own memory bank"):
            check_given(self.MODEL, Path("lamp.bank"), Path("lamp.onnx"))
