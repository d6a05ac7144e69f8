"""The record beside a plan: whole, checked, and what keeps a plan from being run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchline.runtime.engine.plans.record import (
    BuildOptions,
    Device,
    PlanRecord,
    load_record,
    mismatches,
    record_path,
)
from patchline.runtime.errors import ModelError

ORIN = Device(gpu="Orin", compute_capability="8.7")
H200 = Device(gpu="NVIDIA H200", compute_capability="9.0")
RECORD = PlanRecord(
    onnx_sha256="a" * 64,
    plan_sha256="b" * 64,
    flavour="tensorrt",
    version="10.3.0",
    device=ORIN,
    options=BuildOptions(),
)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "bottle.trt"
    record_path(path).write_text(RECORD.to_json())
    return path


def test_it_lies_beside_the_plan(plan: Path) -> None:
    assert record_path(plan).name == "bottle.trt.json"


def test_what_goes_in_comes_out(plan: Path) -> None:
    assert load_record(plan) == RECORD
    json.loads(record_path(plan).read_text(), parse_constant=pytest.fail)


def test_a_missing_record_says_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is missing.*build-engine bottle\.onnx"):
        load_record(tmp_path / "bottle.trt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"record_version": 2}, "record_version"),
        ({"onnx_sha256": "short"}, "onnx_sha256"),
        ({"extra": 1}, "extra"),
        ({"options": {"batch": [0, 1, 2]}}, "options.batch.0"),
        ({"device": {"gpu": "Orin"}}, "device.compute_capability"),
    ],
)
def test_an_edited_record_names_the_field(
    plan: Path, change: dict[str, object], words: str
) -> None:
    document = json.loads(RECORD.to_json()) | change
    record_path(plan).write_text(json.dumps(document))
    with pytest.raises(ModelError, match=words) as error:
        load_record(plan)
    assert "Build the plan again" in str(error.value)


def test_no_json(plan: Path) -> None:
    record_path(plan).write_text("{")
    with pytest.raises(ModelError, match="no valid plan record"):
        load_record(plan)


def changed(**changes: object) -> PlanRecord:
    return RECORD.model_copy(update=changes)


def test_the_same_machine_and_file_match() -> None:
    assert mismatches(RECORD, RECORD) == []
    assert mismatches(RECORD, changed(plan_sha256="c" * 64)) == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            changed(version="11.4.0"),
            "it was built with tensorrt 10.3.0, this machine has tensorrt 11.4.0",
        ),
        (changed(flavour="tensorrt-rtx"), "this machine has tensorrt-rtx 10.3.0"),
        (changed(device=H200), "it was built for Orin (8.7), this is NVIDIA H200 (9.0)"),
        (changed(device=None), "this is no GPU"),
        (changed(onnx_sha256="d" * 64), "another ONNX file"),
        (changed(options=BuildOptions(tf32=True)), "built with tf32 False, asked is True"),
        (changed(options=BuildOptions(batch=(1, 4, 4))), "batch (1, 1, 8), asked is (1, 4, 4)"),
        (changed(options=BuildOptions(workspace_bytes=1 << 30)), "workspace_bytes None"),
    ],
)
def test_every_difference_is_a_sentence(wanted: PlanRecord, words: str) -> None:
    (sentence,) = mismatches(RECORD, wanted)
    assert words in sentence


def test_all_differences_are_told_at_once() -> None:
    wanted = changed(version="11.4.0", device=H200, onnx_sha256="d" * 64)
    assert len(mismatches(RECORD, wanted)) == 3
