"""Fixtures of the device side's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from .fakes import gray
from .tiny_model import write_tiny_model

_SHARED = Path(__file__).parents[2] / "../shared"


@pytest.fixture(scope="session")
def _tiny_model_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def tiny_model(_tiny_model_once: Path, tmp_path: Path) -> Path:
    """``model/lamp.onnx`` with its manifest, to be damaged at will."""
    folder = tmp_path / "model"
    shutil.copytree(_tiny_model_once.parent, folder)
    return folder / "lamp.onnx"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of five pictures, the last of them anomalous."""
    folder = tmp_path / "pictures"
    (folder / "late").mkdir(parents=True)
    names = ("1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp")
    for name, value in zip(names, (10, 20, 30, 40, 250), strict=True):
        assert cv2.imwrite(str(folder / name), gray(value))
    return folder


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small video: frame i has the brightness 4 i."""

    def make(name: str = "line.avi", frames: int = 30, codec: str = "MJPG") -> Path:
        path = tmp_path / name
        fourcc = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(path), fourcc, 25.0, (64, 48))
        assert writer.isOpened()
        for index in range(frames):
            writer.write(gray(4 * index))
        writer.release()
        return path

    return make


@pytest.fixture
def shared() -> Path:
    """The folder of real data, where it is."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("../shared is not here: it holds the MVTec classes, weights and videos")
    return _SHARED.resolve()
