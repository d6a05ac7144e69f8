"""The training state: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from patchline.export.state import Place, TrainingState, load_state, save_state, state_path
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.errors import ManifestError, ModelError


@pytest.fixture
def state_file(model: Path) -> Path:
    return state_path(model)


def rewrite(path: Path, bank: torch.Tensor | None = None, **changes: Any) -> None:
    """Write the state again with fields of its manifest changed."""
    with safetensors.safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["manifest"]) | changes
        bank = file.get_tensor("memory_bank") if bank is None else bank
    path.write_bytes(
        safetensors.torch.save({"memory_bank": bank}, {"manifest": json.dumps(document)})
    )


def test_it_lies_beside_the_model() -> None:
    assert state_path(Path("models/bottle.onnx")) == Path("models/bottle.safetensors")


def test_what_goes_in_comes_out(model: Path, tmp_path: Path) -> None:
    manifest = load_manifest(manifest_path(model))
    bank = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    section = manifest.memory_bank.model_copy(update={"rows": 5, "dimension": 3})
    state = TrainingState(bank, manifest.model_copy(update={"memory_bank": section}))
    path = tmp_path / "state.safetensors"
    save_state(state, path)
    found = load_state(path)
    assert found.manifest == state.manifest
    assert torch.equal(found.memory_bank, bank)


@pytest.mark.parametrize("place", ["embedded", "external"])
def test_it_says_where_the_bank_is(model: Path, tmp_path: Path, place: Place) -> None:
    state = replace(load_state(state_path(model)), bank=place)
    save_state(state, tmp_path / "state.safetensors")
    assert load_state(tmp_path / "state.safetensors").bank == place


def test_a_state_that_does_not_say_it_is_of_an_embedded_bank(state_file: Path) -> None:
    with safetensors.safe_open(state_file, framework="pt") as file:
        bank, metadata = file.get_tensor("memory_bank"), file.metadata()
    assert metadata.pop("bank") == "embedded"
    safetensors.torch.save_file({"memory_bank": bank}, state_file, metadata)
    assert load_state(state_file).bank == "embedded"
    safetensors.torch.save_file({"memory_bank": bank}, state_file, metadata | {"bank": "cloud"})
    with pytest.raises(ModelError, match=r"the bank is 'cloud', expected one of .*upgrade"):
        load_state(state_file)


def test_a_view_of_a_larger_tensor_is_saved_as_what_it_shows(model: Path, tmp_path: Path) -> None:
    state = load_state(state_path(model))
    view = torch.stack([state.memory_bank, -state.memory_bank], 2)[:, :, 1]
    path = tmp_path / "state.safetensors"
    save_state(TrainingState(view, state.manifest), path)
    assert torch.equal(load_state(path).memory_bank, -state.memory_bank)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*none.safetensors"):
        load_state(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, -1])
def test_a_cut_file(state_file: Path, kept_bytes: int) -> None:
    state_file.write_bytes(state_file.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=r"cannot read .*gasket.safetensors"):
        load_state(state_file)


def test_a_file_of_another_kind(state_file: Path) -> None:
    state_file.write_bytes(b"PK\x03\x04 this is no safetensors file at all")
    with pytest.raises(ModelError, match=r"cannot read .*gasket.safetensors"):
        load_state(state_file)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weight": torch.zeros(2)}, None),
        ({"memory_bank": torch.zeros(2, 2)}, None),
        ({"memory_bank": torch.zeros(2, 2)}, {"format": "pt"}),
        ({"weight": torch.zeros(2)}, {"manifest": "{}"}),
    ],
)
def test_a_foreign_safetensors_file(
    state_file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None
) -> None:
    state_file.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(ModelError, match=r"is no Patchline state"):
        load_state(state_file)


def test_an_edited_manifest_names_the_field(state_file: Path) -> None:
    rewrite(state_file, memory_bank={"rows": 307})
    with pytest.raises(ManifestError, match=r"gasket.safetensors.*memory_bank.dimension"):
        load_state(state_file)


def test_a_newer_version(state_file: Path) -> None:
    rewrite(state_file, schema_version=2)
    with pytest.raises(ManifestError, match=r"schema_version is 2.*Upgrade patchline"):
        load_state(state_file)


def test_a_bank_of_another_shape_than_the_manifest_says(state_file: Path) -> None:
    rewrite(state_file, bank=torch.zeros(4, 384))
    with pytest.raises(ModelError, match=r"\(4, 384\), expected float32 \(307, 384\)"):
        load_state(state_file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_a_bank_of_another_type(state_file: Path, dtype: torch.dtype) -> None:
    rewrite(state_file, bank=torch.zeros(307, 384, dtype=dtype))
    with pytest.raises(ModelError, match=r"expected float32"):
        load_state(state_file)
