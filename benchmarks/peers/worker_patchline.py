"""Patchline's engine, with ``patchline[cpu]`` alone: a worker of the peers' benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2  # noqa: F401  what the engine loads late counts as import here, as with the peers
import numpy as np
import onnxruntime  # noqa: F401

from patchline.runtime.engine import Engine, open_engine
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess

PACKAGES = ["patchline", "onnxruntime", "opencv-python-headless", "numpy"]
COMMANDS = ["load"]

_engines: list[Engine] = []


def load(folder: str, threads: int) -> dict[str, Any]:
    """Open the one model of a folder."""
    (path,) = Path(folder).glob("*.onnx")
    _engines[:] = [open_engine(path, provider="cpu", threads=threads)]
    return {}


def read(path: str) -> Frame:
    """A picture file as a frame at model size, as ``run-camera`` makes it."""
    return preprocess(read_image(Path(path)), _engines[0].manifest.model_size)


def judge(frame: Frame) -> tuple[float, Any]:
    """Image score and map of uint8 ``[H, W, 3]`` BGR."""
    found = _engines[0].infer(frame[np.newaxis])
    return float(found.image_score[0]), found.anomaly_map[0]
