"""A bank in half precision: stored so, taken so by the graph and the plan, and by no other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from patchline.runtime import contract
from patchline.runtime.bank import Bank, load_bank, save_bank
from patchline.runtime.contract import BankPrecision, Manifest, OnnxFile, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.inference.plan_io import read_io
from patchline.runtime.errors import ManifestError, ModelError
from patchline.runtime.graph import (
    BANK_SQUARES,
    GROUP_ROWS,
    HALF_SPARES,
    MEMORY_BANK,
    GraphManifest,
    graph_of,
    least_bank_rows,
)

from .fake_cuda import World
from .fake_tensorrt import Engine, make_flavour, tensors
from .tiny_model import SIZE, make_graph_manifest, make_manifest, tiny_bank, tiny_graph_bytes

LEAST = GROUP_ROWS * (1 + HALF_SPARES)
VALUE = 2.0**-5
"""A bank's value; so small and simple that it is the same in half precision."""

FRAMES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def half_manifest() -> Manifest:
    manifest = make_manifest()
    described = manifest.memory_bank.model_copy(update={"precision": "fp16"})
    return manifest.model_copy(update={"memory_bank": described})


def half_bank(rows: int = LEAST) -> Bank:
    bank = tiny_bank(value=VALUE, rows=rows)
    stored = bank.tensors[MEMORY_BANK].astype(np.float16)
    return Bank(half_manifest(), {**bank.tensors, MEMORY_BANK: stored})


def write_half_graph(folder: Path, said: BankPrecision = "fp16") -> Path:
    """The tiny graph with its bank in half; its manifest may say something else."""
    manifest = make_graph_manifest(bank_precision=said)
    model = onnx.load_from_string(tiny_graph_bytes({contract.METADATA_KEY: manifest.to_json()}))
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT16
    (reader,) = (node for node in model.graph.node if MEMORY_BANK in node.input)
    reader.input[0] = "rows_float"
    cast = helper.make_node("Cast", [MEMORY_BANK], ["rows_float"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    path = folder / "graph.onnx"
    onnx.save_model(model, str(path))
    file = OnnxFile(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    manifest.model_copy(update={"onnx": file}).save(manifest_path(path))
    return path


@pytest.fixture
def bank_path(tmp_path: Path) -> Path:
    save_bank(half_bank(), tmp_path / "lamp.bank")
    return tmp_path / "lamp.bank"


class TestFile:
    def test_it_comes_back_bit_by_bit(self, tmp_path: Path) -> None:
        bank = half_bank()
        rows = np.random.default_rng(1).normal(size=(LEAST, 1)).astype(np.float16)
        bank = replace(bank, tensors={**bank.tensors, MEMORY_BANK: rows})
        save_bank(bank, tmp_path / "lamp.bank")
        found = load_bank(tmp_path / "lamp.bank")
        assert found.manifest.memory_bank.precision == "fp16"
        for name, array in bank.tensors.items():
            assert found.tensors[name].dtype == array.dtype
            assert found.tensors[name].tobytes() == array.tobytes()

    @pytest.mark.parametrize(
        ("manifest", "dtype", "expected"),
        [(half_manifest(), np.float32, "float16"), (make_manifest(), np.float16, "float32")],
    )
    def test_rows_of_another_type_than_the_manifest_says(
        self, tmp_path: Path, manifest: Manifest, dtype: Any, expected: str
    ) -> None:
        bank = half_bank()
        rows = bank.tensors[MEMORY_BANK].astype(dtype)
        save_bank(Bank(manifest, {**bank.tensors, MEMORY_BANK: rows}), tmp_path / "lamp.bank")
        found = np.dtype(dtype).name
        with pytest.raises(ModelError, match=rf"memory_bank is {found} .*expected {expected} "):
            load_bank(tmp_path / "lamp.bank")

    def test_squares_stay_float32(self, tmp_path: Path) -> None:
        bank = half_bank()
        squares = np.zeros(LEAST, np.float16)
        save_bank(
            replace(bank, tensors={**bank.tensors, BANK_SQUARES: squares}), tmp_path / "lamp.bank"
        )
        with pytest.raises(ModelError, match=r"bank_squares is float16 .*expected float32"):
            load_bank(tmp_path / "lamp.bank")

    def test_it_has_a_group_for_each_row_that_is_looked_at(self, tmp_path: Path) -> None:
        save_bank(half_bank(LEAST - GROUP_ROWS), tmp_path / "lamp.bank")
        with pytest.raises(ModelError, match=rf"it has 256 rows, .* at least {LEAST}"):
            load_bank(tmp_path / "lamp.bank")

    def test_an_infinite_row(self, tmp_path: Path) -> None:
        bank = half_bank()
        bank.tensors[MEMORY_BANK][3] = np.inf
        save_bank(bank, tmp_path / "lamp.bank")
        with pytest.raises(ModelError, match="NaN or infinite"):
            load_bank(tmp_path / "lamp.bank")


def test_the_least_rows_by_neighbours_and_precision() -> None:
    assert least_bank_rows(9, "fp32") == 288
    assert least_bank_rows(9, "fp16") == 544
    assert graph_of(half_manifest()).least_rows == LEAST


class TestOnnxRuntime:
    def test_it_judges_by_a_bank_in_half(self, tmp_path: Path, bank_path: Path) -> None:
        with open_engine(write_half_graph(tmp_path), provider="cpu", bank=bank_path) as engine:
            found = engine.infer(FRAMES)
        np.testing.assert_allclose(found.anomaly_map, FRAMES.mean(axis=3) - VALUE, rtol=1e-5)

    def test_a_bank_in_float32_is_for_another_graph(self, tmp_path: Path) -> None:
        save_bank(tiny_bank(value=VALUE, rows=LEAST), tmp_path / "other.bank")
        path = write_half_graph(tmp_path)
        with pytest.raises(ManifestError, match="bank_precision: fp32, not fp16"):
            open_engine(path, provider="cpu", bank=tmp_path / "other.bank")

    def test_a_graph_whose_input_is_not_what_its_manifest_says(self, tmp_path: Path) -> None:
        save_bank(tiny_bank(value=VALUE), tmp_path / "other.bank")
        path = write_half_graph(tmp_path, said="fp32")
        with pytest.raises(ModelError, match=r"takes its memory_bank as tensor\(float16\), and"):
            open_engine(path, provider="cpu", bank=tmp_path / "other.bank")


class TestPlan:
    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_its_type_is_the_manifests(self, precision: BankPrecision) -> None:
        found, other = {"fp32": ("FLOAT", "float16"), "fp16": ("HALF", "float32")}[precision]
        graph = make_graph_manifest(bank_precision=precision)
        io = self.read(graph, found)
        assert io.bank[MEMORY_BANK] == ((LEAST, 1), (1024, 1))
        wrong = {"FLOAT": "HALF", "HALF": "FLOAT"}[found]
        with pytest.raises(ModelError, match=f"memory_bank is input {other} "):
            self.read(graph, wrong)

    def read(self, graph: GraphManifest, dtype: str) -> Any:
        spec = tensors((1, 1, 4), (LEAST, LEAST, 1024))
        spec[MEMORY_BANK]["dtype"] = dtype
        world = World()
        return read_io(make_flavour(world).trt, Engine(world, None, spec), graph, Path("a.trt"))
