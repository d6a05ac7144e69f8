"""The state of a distilled model: written and read again, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.state import (
    load_distilled_state,
    restored,
    trained_tensors,
)
from patchline.export.extend import load_base
from patchline.export.state import load_state
from patchline.runtime.errors import ModelError, WeightsError

from ..drawn import CLASS_NAME


@pytest.fixture
def state_file(own_copy: Path) -> Path:
    return own_copy.with_suffix(".safetensors")


def rewrite(path: Path, **changes: str | None) -> None:
    """Write a state again with other metadata."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {name: text for name, text in (metadata | changes).items() if text is not None}
    safetensors.torch.save_file(tensors, path, kept)


def test_the_networks_come_back_as_they_were(state_file: Path, distilled: DistilledModel) -> None:
    model = restored(load_distilled_state(state_file), "random")
    assert not model.training
    known = distilled.detector.model.state_dict()
    found = model.state_dict()
    assert found.keys() == known.keys()
    assert all(torch.equal(found[name], known[name]) for name in known)


def test_the_batch_norms_statistics_are_in_it(distilled: DistilledModel) -> None:
    names = trained_tensors(distilled.detector.model)
    assert any(name.endswith("running_mean") for name in names)
    assert {name.split(".")[0] for name in names} == {"bottleneck", "student"}


def test_other_weights_of_the_teacher_are_refused(state_file: Path, tmp_path: Path) -> None:
    state = load_distilled_state(state_file)
    teacher = restored(state, "random").teacher.state_dict()
    teacher["conv1.weight"] += 1
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(teacher, other)
    with pytest.raises(WeightsError, match=r"trained with the weights random, and other.safete"):
        restored(state, str(other))


def test_a_tensor_that_was_changed_is_found_out(state_file: Path) -> None:
    with safetensors.safe_open(state_file, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors[sorted(tensors)[0]].view(-1)[0] += 1
    safetensors.torch.save_file(tensors, state_file, metadata)
    with pytest.raises(ModelError, match=r"gasket\.safetensors was altered or damaged"):
        load_distilled_state(state_file)


def test_a_file_that_is_no_state_is_refused(
    state_file: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is no state of a model of reverse-distillation"):
        load_distilled_state(exported.with_suffix(".safetensors"))
    with pytest.raises(ModelError, match="cannot read"):
        load_distilled_state(tmp_path / "none.safetensors")
    state_file.write_bytes(state_file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot read"):
        load_distilled_state(state_file)


def test_a_state_without_its_manifest_is_refused(state_file: Path) -> None:
    rewrite(state_file, manifest=None)
    with pytest.raises(ModelError, match="is no state of a model"):
        load_distilled_state(state_file)


def test_it_can_be_neither_extended_nor_exported_again(state_file: Path) -> None:
    words = r"is the state of a model of the method reverse-distillation.*again from all.*--resume"
    with pytest.raises(ModelError, match=words):
        load_state(state_file)
    with pytest.raises(ModelError, match=words):
        load_base(state_file.parent, CLASS_NAME)
