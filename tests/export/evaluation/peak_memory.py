"""Run by test_memory in a process of its own: peak memory of an evaluation of 300 pictures."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from patchline.export.evaluation.evaluate import evaluate_class
from patchline.runtime.contract import parse_manifest
from patchline.runtime.engine import Prediction
from patchline.runtime.preprocess import Frame


class NoiseEngine:
    """Smooth maps that hardly hold one value twice: the most levels there can be."""

    description = "a fake"

    def __init__(self, manifest: str) -> None:
        self.manifest = parse_manifest(manifest, "stdin")
        self._rng = np.random.default_rng(1)

    def infer(self, frames: Frame) -> Prediction:
        noise = self._rng.random(frames.shape[:3], np.float32)
        anomaly_map = frames[..., 0] / np.float32(64) + noise
        return Prediction(anomaly_map.max(axis=(1, 2)), anomaly_map, noise)

    def close(self) -> None:
        pass


def write_pictures(root: Path, good: int, defective: int, side_px: int) -> None:
    """Good and defective pictures; 3 % of the pixels of a defective one are marked."""
    mask = np.zeros((side_px, side_px), np.uint8)
    side = round(side_px * 0.03**0.5)
    mask[9 : 9 + side, 9 : 9 + side] = 255
    for kind, count in (("good", good), ("bright", defective)):
        folder, masks = root / "test" / kind, root / "ground_truth" / kind
        folder.mkdir(parents=True)
        masks.mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(folder / f"{i:03}.png"), mask // 8 if kind != "good" else mask * 0)
            if kind != "good":
                cv2.imwrite(str(masks / f"{i:03}_mask.png"), mask)


def main() -> None:
    root, good, defective = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    write_pictures(root / "lamp", good, defective, 256)
    metrics = evaluate_class(NoiseEngine(sys.stdin.read()), root).metrics
    # From the start of the process, imports and all. (``ru_maxrss`` would start at the parent's.)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"peak_bytes": peak} | asdict(metrics)))  # noqa: T201


if __name__ == "__main__":
    main()
