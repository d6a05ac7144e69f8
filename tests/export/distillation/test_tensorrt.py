"""TensorRT for RTX builds a distilled model on a CPU, for batches of 1 to 8 (DESIGN 5)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchline.runtime import contract
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine.build import Target, build_plan
from patchline.runtime.engine.compat import TENSORRT_RTX, load_flavour
from patchline.runtime.engine.plans.record import BuildOptions, PlanRecord, load_record
from patchline.runtime.progress import SilentSteps

from ..watched_tensorrt import Watched, watch

pytest.importorskip("tensorrt_rtx_bindings")

BATCH = (1, 1, 8)
FRAME = (64, 64, 3)


@dataclass(frozen=True)
class Built:
    """A plan, its record, and what it was built from."""

    plan: Path
    record: PlanRecord
    seen: Watched


@pytest.fixture(autouse=True)
def cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing here may find, or leave, a timing cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(model: Path, folder: Path) -> Built:
    flavour, seen = watch(load_flavour(TENSORRT_RTX))
    plan = folder / "gasket.trt"
    build_plan(model, plan, Target(flavour, None, BuildOptions(batch=BATCH)), SilentSteps())
    return Built(plan, load_record(plan), seen)


def test_a_plan_for_batches_of_one_to_eight(published: Path, tmp_path: Path) -> None:
    built = build(published, tmp_path)
    seen = built.seen
    assert seen.inputs == [(contract.FRAMES, "UINT8", (-1, *FRAME))]
    assert seen.profile == {contract.FRAMES: tuple((count, *FRAME) for count in BATCH)}
    assert seen.outputs == [
        (contract.IMAGE_SCORE, "FLOAT", (-1,)),
        (contract.ANOMALY_MAP, "FLOAT", (-1, 64, 64)),
        (contract.INFLUENCE_MAP, "FLOAT", (-1, 64, 64)),
    ]
    assert len(seen.kinds["DECONVOLUTION"]) == 6
    assert seen.strongly_typed and not seen.tf32
    assert not seen.types & {"HALF", "BF16", "FP8", "INT8", "INT4", "FP4"}
    assert built.plan.stat().st_size > 50 << 20  # teacher, bottleneck and student
    onnx = load_manifest(manifest_path(published)).onnx
    assert onnx is not None and built.record.onnx_sha256 == onnx.sha256


def test_a_plan_in_half_precision(half_file: Path, tmp_path: Path) -> None:
    built = build(half_file, tmp_path)
    for kind in ("CONVOLUTION", "DECONVOLUTION"):
        assert set(built.seen.kinds[kind]) == {"HALF"}
    assert {kind for _, kind, _ in built.seen.outputs} == {"FLOAT"}
    assert 25 << 20 < built.plan.stat().st_size < 35 << 20


def test_build_engine_writes_it_beside_the_model(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published.parent, tmp_path / "models")
    model = tmp_path / "models" / published.name
    finished = subprocess.run(
        [sys.executable, "-m", "patchline.runtime.cli.build_engine", str(model)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "models" / "gasket.trt").is_file()
    assert load_record(tmp_path / "models" / "gasket.trt").flavour == TENSORRT_RTX
