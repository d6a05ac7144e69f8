"""Real pictures, real weights: what FP16 and INT8 may cost (issue: FP16 and INT8)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from patchline.export.cli import export_model
from patchline.runtime.contract import Manifest, load_manifest
from tests.programs import run_program

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]

WEIGHTS = "weights/resnet18_imagenet1k_v1_bnfolded_layer1-3.pth"
LARGEST_LOSS = {"fp16": 0.001, "int8": 0.005}


def export(shared: Path, name: str, out: Path, *more: object) -> tuple[Manifest, str]:
    words = ("--cls", name, "--data", shared / "data", "--backbone", "resnet18", "--out", out)
    rest = ("--weights", shared / WEIGHTS, "--device", "cpu", "--json", *more)
    done = run_program(
        [sys.executable, "-m", export_model.__name__, *map(str, (*words, *rest))],
        capture_output=True,
        text=True,
        check=False,
        limit_s=1700,
    )
    assert done.returncode == 0, done.stderr
    return load_manifest(Path(json.loads(done.stdout)["model"]).with_suffix(".json")), done.stderr


@pytest.fixture(scope="module", params=["bottle", "pill"])
def fitted(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("fp32")
    export(shared, request.param, out)
    return request.param, out


@pytest.mark.parametrize("precision", sorted(LARGEST_LOSS))
@pytest.mark.timeout(1800)
def test_a_converted_model_still_sees_the_defects(
    fitted: tuple[str, Path], shared: Path, tmp_path: Path, precision: str
) -> None:
    name, state = fitted
    manifest, stderr = export(shared, name, tmp_path, "--state", state, "--precision", precision)
    assert "without a fit" in stderr
    assert manifest.conversion is not None
    gate = manifest.conversion.gate
    assert gate.problems == () and not gate.is_forced and gate.labelled_images > 0
    assert gate.image_auroc_change is not None and gate.pixel_auroc_change is not None
    assert gate.image_auroc_change >= -LARGEST_LOSS[precision]
    assert gate.pixel_auroc_change >= -LARGEST_LOSS[precision]
    before = load_manifest(state / f"{name}.json")
    assert manifest.threshold.value == pytest.approx(before.threshold.value, rel=0.1)
    if precision == "fp16":
        assert manifest.memory_bank.precision == "fp16"
        size = (tmp_path / f"{name}.onnx").stat().st_size
        assert size <= 0.55 * (state / f"{name}.onnx").stat().st_size
