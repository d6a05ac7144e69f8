"""The check for a GPU from end to end on the fake one, whose TensorRT computes the tiny models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.benchmarks.gpu_check.bench import Sizes
from patchline.benchmarks.gpu_check.carried import (
    BACKBONE,
    CASES,
    EMBEDDED,
    EXTERNAL,
    OTHER,
    save_outputs,
)
from patchline.benchmarks.gpu_check.run import PARTS, check_gpu
from patchline.runtime.engine import Prediction, compat, open_engine

from .fake_cuda import Fault, World, install
from .fake_tensorrt import make_flavour, write_plan
from .tiny_model import SIZE, write_tiny_bank, write_tiny_graph, write_tiny_model

SIZES = Sizes(inferences=100, rounds=2, batches=(1, 3), switches=4)
FRAMES = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What ``pack`` writes, of tiny models, with plans beside them that the fake TensorRT reads."""
    root = tmp_path / "carried"
    for name in (*CASES, OTHER):
        (root / name).mkdir(parents=True)
    write_plan(write_tiny_model(root / EMBEDDED))
    write_plan(write_tiny_graph(root / EXTERNAL), rows=(32, 32, 96))
    write_tiny_bank(root / EXTERNAL / "lamp.bank", 10.0)
    write_tiny_bank(root / OTHER / "bolt.bank", 60.0)
    shutil.copytree(root / EMBEDDED, root / BACKBONE, dirs_exist_ok=True)
    for name in (*CASES, OTHER):
        store(root, name)
    np.savez(root / "frames.npz", frames=FRAMES)
    (root / "packed.json").write_text(json.dumps({"frames": len(FRAMES)}))
    return root


def store(root: Path, name: str) -> None:
    """Keep what ONNX Runtime computes."""
    (model,) = (root / (EXTERNAL if name == OTHER else name)).glob("*.onnx")
    bank = next((root / name).glob("*.bank"), None)
    with open_engine(model, provider="cpu", bank=bank) as engine:
        found = engine.infer(FRAMES)
    nothing = Prediction(*(np.zeros_like(values) for values in vars(found).values()))
    save_outputs(root / f"{name}.npz", found, nothing)


Check = Callable[[World], tuple[list[str], dict[str, Any]]]


@pytest.fixture
def check(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    def run(world: World) -> tuple[list[str], dict[str, Any]]:
        install(monkeypatch, world)
        monkeypatch.setattr(compat, "load_flavour", lambda name: make_flavour(world))
        out = tmp_path / "gpu-check.json"
        failures = check_gpu(folder, out, device=0, flavour=None, sizes=SIZES, say=str)
        return failures, json.loads(out.read_text())

    return run


@pytest.mark.parametrize("mood", ["lazy", "random"])
def test_all_parts_pass_and_everything_is_released(check: Check, mood: str) -> None:
    world = World(1, mood)
    failures, document = check(world)
    assert failures == document["failures"] == []
    assert document["not_run"] == []
    assert list(document["parts"]) == list(PARTS)
    assert document["machine"]["gpu"] == {"gpu": "Orin", "compute_capability": "8.7"}
    assert document["machine"]["tensorrt"] == "TensorRT 10.3.0"
    assert document["carried"] == {"frames": 6}
    compared = document["parts"]["compare"]["external, cuda_graph"]
    assert compared["frames"] == compared["verdicts_that_agree"] == 2 * (6 + 6)
    assert document["parts"]["build"]["external"]["gpu_bytes_left_behind"] == 0
    assert document["parts"]["endurance"]["gpu_memory"]["settled_growth_bytes"] == 0
    # Several engines are open at once, so the order between them is not that of one.
    world.assert_clean(in_order=False)


def test_outputs_that_are_not_those_of_onnx_runtime_are_failures(
    check: Check, folder: Path
) -> None:
    with np.load(folder / "embedded.npz") as file:
        arrays = dict(file)
    np.savez(folder / "embedded.npz", **arrays | {"image_score": arrays["image_score"] * 1.01})
    failures, _ = check(World())
    assert any(failure.startswith("compare: embedded, stream: image_score") for failure in failures)
    assert not any("external" in failure for failure in failures)


def test_a_gpu_that_is_lost_is_recorded_and_the_rest_is_tried(check: Check) -> None:
    world = World(fault=Fault(200, "an illegal memory access was encountered", is_lost=True))
    failures, document = check(world)
    assert document["not_run"] == []
    assert any("the GPU is lost" in failure for failure in failures)
