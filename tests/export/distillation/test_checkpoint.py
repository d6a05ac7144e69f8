"""Checkpoints: whole or not at all, no pickle, and of this training or refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from patchline.export.distillation.checkpoint import (
    BEFORE_NAME,
    Checkpoint,
    Progress,
    checkpoint_path,
    has_checkpoint,
    last_good,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from patchline.runtime.errors import TrainingError, WriteError

IDENTITY = {"backbone": "resnet18", "image_size": [32, 32], "train.betas": (0.9, 0.999), "seed": 3}
PROGRESS = Progress(
    epoch=2,
    batch=1,
    losses=(0.1 + 0.2, 1 / 3),
    batch_losses=(2e-7,),
    scaler={"scale": 65536.0, "_growth_tracker": 4},
)
TENSORS = {
    "student.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "student.count": torch.tensor(7),
    "noise.0.statistics": torch.tensor([0.1, 0.2], dtype=torch.float64),
}
CHECKPOINT = Checkpoint(IDENTITY, PROGRESS, TENSORS)


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path: Path) -> None:
    path = save_checkpoint(CHECKPOINT, tmp_path / "new" / "folder")
    found = load_checkpoint(path.parent, IDENTITY)
    assert found.progress == PROGRESS
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_transposed_tensor_is_saved_as_it_looks(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(2, 3).t()
    save_checkpoint(replace(CHECKPOINT, tensors={"t": tensor}), tmp_path)
    assert torch.equal(load_checkpoint(tmp_path, IDENTITY).tensors["t"], tensor)


def test_it_is_plain_safetensors_and_json(tmp_path: Path) -> None:
    path = save_checkpoint(CHECKPOINT, tmp_path)
    with safetensors.safe_open(path, framework="np") as file:
        document = json.loads(file.metadata()["patchline_training"])
    assert document["identity"]["backbone"] == "resnet18"
    assert document["progress"]["epoch"] == 2
    assert [item.name for item in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_diverged_state_does_not_replace_a_good_one(tmp_path: Path, value: float) -> None:
    before = save_checkpoint(CHECKPOINT, tmp_path).read_bytes()
    bad = {**TENSORS, "student.weight": torch.tensor([1.0, value])}
    with pytest.raises(TrainingError, match=r"student\.weight holds NaN.*2 epochs and 1 batches.*"):
        save_checkpoint(replace(CHECKPOINT, tensors=bad), tmp_path)
    assert checkpoint_path(tmp_path).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="file"):
        save_checkpoint(CHECKPOINT, tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet50"}, 'backbone is "resnet18" there and "resnet50" here'),
        ({"image_size": [64, 32]}, r"image_size is \[32, 32\] there and \[64, 32\] here"),
        ({"train.betas": (0.9, 0.99)}, r"train\.betas is \[0\.9, 0\.999\] there and \[0\.9, 0\.99"),
        ({"seed": 4, "more": 1}, "seed is 3 there and 4 here; more is missing there and 1 here"),
    ],
)
def test_another_training_is_refused_with_what_differs(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_checkpoint(CHECKPOINT, tmp_path)
    with pytest.raises(TrainingError, match=f"another training: {message}.*without --resume"):
        load_checkpoint(tmp_path, IDENTITY | change)


def test_a_field_that_is_gone_differs_too(tmp_path: Path) -> None:
    save_checkpoint(CHECKPOINT, tmp_path)
    fewer = {name: value for name, value in IDENTITY.items() if name != "seed"}
    with pytest.raises(TrainingError, match="seed is 3 there and missing here"):
        load_checkpoint(tmp_path, fewer)


def test_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint .*last\.safetensors to resume from"):
        load_checkpoint(tmp_path, IDENTITY)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"0" * 100])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, content: bytes) -> None:
    checkpoint_path(tmp_path).write_bytes(content)
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path, IDENTITY)


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = save_checkpoint(CHECKPOINT, tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "text",
    [None, "", "no json", "[]", '{"format": 1}', '{"format": 1, "identity": {}, "progress": 3}'],
)
def test_tensors_without_a_training_are_an_error(tmp_path: Path, text: str | None) -> None:
    metadata = None if text is None else {"patchline_training": text}
    safetensors.torch.save_file(TENSORS, checkpoint_path(tmp_path), metadata)
    with pytest.raises(TrainingError, match="no checkpoint of a Patchline training"):
        load_checkpoint(tmp_path, IDENTITY)


def test_a_newer_format_is_an_error(tmp_path: Path) -> None:
    metadata = {"patchline_training": '{"format": 2, "all": "new"}'}
    safetensors.torch.save_file(TENSORS, checkpoint_path(tmp_path), metadata)
    with pytest.raises(TrainingError, match="format 2, and this Patchline reads 1"):
        load_checkpoint(tmp_path, IDENTITY)


def test_what_is_left_is_said(tmp_path: Path) -> None:
    assert last_good(None) == last_good(tmp_path) == "No checkpoint was written yet."
    path = save_checkpoint(CHECKPOINT, tmp_path)
    assert last_good(tmp_path) == f"The last good checkpoint is {path}."
    assert has_checkpoint(tmp_path) and not has_checkpoint(None)
    assert not has_checkpoint(tmp_path / "elsewhere")


@pytest.mark.parametrize("has_links", [True, False])
def test_an_earlier_one_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    for epoch in (1, 2, 3):  # only the newest of those before is kept
        if epoch > 1:
            set_aside(tmp_path)
            assert load_checkpoint(tmp_path, IDENTITY).progress.epoch == epoch - 1  # until then
            set_aside(tmp_path)  # once more, as after an interrupt: both may be one file already
        save_checkpoint(replace(CHECKPOINT, progress=replace(PROGRESS, epoch=epoch)), tmp_path)
    assert load_checkpoint(tmp_path, IDENTITY).progress.epoch == 3
    (tmp_path / BEFORE_NAME).replace(checkpoint_path(tmp_path))
    assert load_checkpoint(tmp_path, IDENTITY).progress.epoch == 2
    assert [item.name for item in tmp_path.iterdir()] == ["last.safetensors"]


def test_an_earlier_one_stays_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hard links it is copied, and a copy that fails costs neither of the two."""
    path, kept = save_checkpoint(CHECKPOINT, tmp_path), tmp_path / BEFORE_NAME
    kept.write_bytes(b"from before it")
    before = path.read_bytes()

    def no_link(*paths: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    def half(source: Path, target: Path) -> None:
        Path(target).write_bytes(before[:10])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(WriteError, match="the disk is full"):
        set_aside(tmp_path)
    assert path.read_bytes() == before and kept.read_bytes() == b"from before it"
    assert sorted(item.name for item in tmp_path.iterdir()) == [kept.name, path.name]


def test_what_cannot_be_set_aside_is_an_error(tmp_path: Path) -> None:
    path = save_checkpoint(CHECKPOINT, tmp_path)
    (tmp_path / BEFORE_NAME / "in the way").mkdir(parents=True)
    with pytest.raises(WriteError, match="cannot write to"):
        set_aside(tmp_path)
    assert path.is_file()
