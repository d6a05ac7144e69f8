"""Run by test_fit in a process of its own: peak memory of a fit over the disk and in memory."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch

from patchline.export.config import FitSettings
from patchline.export.datasets import GoodPictures, good_pictures
from patchline.export.fit import FittedModel, fit
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.runtime.progress import SilentSteps

NEIGHBORS = 1  # what their number costs does not grow with the pictures


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_bytes(pictures: GoodPictures, budget_bytes: int) -> tuple[int, FittedModel]:
    """Peak memory of the process while it fits. (``ru_maxrss`` would start at the parent's.)"""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    fitted = run(pictures, budget_bytes)
    return status_bytes("VmHWM"), fitted


def plan(pictures: GoodPictures) -> MemoryPlan:
    """What a fit all in memory would hold."""
    rows = len(pictures.paths) * 32 * 32
    return plan_memory(
        images=len(pictures.paths),
        patches=32 * 32,
        dimension=384,
        bank_rows=int(rows * 0.001),
        neighbors=NEIGHBORS,
        budget_bytes=1 << 40,
    )


def run(pictures: GoodPictures, budget_bytes: int) -> FittedModel:
    settings = FitSettings(
        backbone="resnet18",
        weights="random",
        image_size=(256, 256),
        coreset_ratio=0.001,
        neighbors=NEIGHBORS,
        batch_size=2,
        device="cpu",
        memory_budget_bytes=budget_bytes,
    )
    return fit(pictures, settings, SilentSteps(), lambda error: None)


def main() -> None:
    torch.set_num_threads(1)
    pictures = good_pictures(Path(sys.argv[1]), "gasket")
    few = GoodPictures(pictures.class_name, pictures.folder, pictures.paths[:4])
    # The smallest budgets that are not refused: features on disk, everything else in memory.
    small, large = (plan(p).peak_bytes - plan(p).features_bytes for p in (few, pictures))
    run(few, small)  # libraries, activations and the allocator's arenas
    few_on_disk, _ = peak_bytes(few, small)
    on_disk, fitted = peak_bytes(pictures, large)
    assert fitted.memory.spill is not None
    in_memory, fitted = peak_bytes(pictures, 1 << 40)
    assert fitted.memory.spill is None
    result = {
        "disk_growth": on_disk - few_on_disk,
        "planned_growth": large - small,
        "memory_growth": in_memory - few_on_disk,
        "features": plan(pictures).features_bytes,
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
