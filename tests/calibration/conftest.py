"""A model that scores brightness, and folders of pictures of known brightness."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.runtime.tiny_model import make_manifest, write_tiny_model

Write = Callable[..., list[Path]]


@pytest.fixture
def lamp(tmp_path: Path) -> Path:
    """``lamp.onnx``: the score of a picture is its brightest pixel. Fitted on 40 to 79."""
    scores = tuple(float(value) for value in range(40, 80))
    manifest = make_manifest(
        normal_scores={"scores": scores, "map_maxima": scores, "mean": 59.5, "std": 11.5},
        threshold={
            "value": 78.0, "map_value": 78.0, "rule": "by hand", "false_alarm_rate": 0.05,
        },
    )  # fmt: skip
    folder = tmp_path / "models"
    folder.mkdir()
    return write_tiny_model(folder, manifest)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one gray picture per brightness and return their paths."""

    def pictures(folder: str, values: Iterable[int]) -> list[Path]:
        paths = []
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for index, value in enumerate(values):
            path = tmp_path / folder / f"{index:03}.png"
            assert cv2.imwrite(str(path), np.full((32, 32, 3), value, np.uint8))
            paths.append(path)
        return paths

    return pictures
