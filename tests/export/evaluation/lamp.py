"""Drawn test sets of lamps, and an engine that says: the brighter, the more anomalous."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchline.runtime.contract import Manifest
from patchline.runtime.engine import Prediction
from patchline.runtime.preprocess import Frame
from tests.runtime.tiny_model import SIZE, make_manifest

CLASS_NAME = "lamp"


class BrightnessEngine:
    """Map: mean over channels, changed by ``change``; score: its maximum."""

    description = "a fake"

    def __init__(
        self,
        change: Callable[[np.ndarray], np.ndarray] = lambda anomaly_map: anomaly_map,
        **manifest: Any,
    ) -> None:
        self.manifest: Manifest = make_manifest(**manifest)
        self._change = change

    def infer(self, frames: Frame) -> Prediction:
        anomaly_map = self._change(frames.mean(axis=3, dtype=np.float32))
        return Prediction(anomaly_map.max(axis=(1, 2)), anomaly_map, anomaly_map / 2)

    def close(self) -> None:
        pass

    def __enter__(self) -> BrightnessEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        pass


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def noise(seed: int, low: int, high: int, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """A gray picture with values in [low, high)."""
    values = np.random.default_rng(seed).integers(low, high, size, dtype=np.uint8)
    return np.repeat(values[..., None], 3, axis=2)


def box(size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """A mask: a square in the middle."""
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
    return mask


def write_lamps(root: Path, name: str = CLASS_NAME, good: int = 3, defective: int = 4) -> Path:
    """A class with dim good pictures and defective ones with a square of noise up to white."""
    folder = root / name
    for i in range(good):
        write(folder / "test" / "good" / f"{i:03}.png", noise(i, 0, 150))
    for i in range(defective):
        image, mask = noise(50 + i, 0, 150), box()
        image[mask > 0] = noise(90 + i, 100, 250)[mask > 0]
        write(folder / "test" / "bright" / f"{i:03}.png", image)
        write(folder / "ground_truth" / "bright" / f"{i:03}_mask.png", mask)
    return folder
