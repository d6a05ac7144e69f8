"""TensorBoard's files hold what was tracked, read back with its own reader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from patchline.export.tracking import TrackSettings, create_tracker

from .fakes import Told, model_file


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run with everything in it, read back."""
    folder, told = tmp_path_factory.mktemp("tensorboard"), Told()
    settings = TrackSettings(
        track="tensorboard", project="the plant", folder=folder / "runs", log_every=2
    )
    picture = np.zeros((6, 10, 3), np.uint8)
    picture[..., 0] = 250
    with create_tracker(settings, "lamp/á", tell=told) as tracker:
        tracker.config({"lr": 0.1})
        tracker.config({"path": Path("a/b")})
        for step in range(5):
            tracker.log({"loss": 1 / (step + 1)}, step=step)
        tracker.log({"metrics/lamp/image_auroc": 0.75}, step=40)
        tracker.images("examples", {"chip 000": picture}, step=3)
        tracker.model(model_file(folder), metadata={"epoch": 3, "image_auroc": 0.9})
        tracker.summary({"best": 0.9})
    assert told == []
    (run,) = (folder / "runs" / "the-plant").iterdir()
    assert re.fullmatch(r"lamp-\d{8}-\d{6}", run.name)
    reader = EventAccumulator(str(run), size_guidance={"tensors": 0, "images": 0})
    reader.Reload()
    return reader


def text_of(read: Any, name: str) -> Any:
    written = read.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in written.splitlines())
    return json.loads(written)


def test_numbers_have_their_steps(read: Any) -> None:
    losses = [(event.step, event.value) for event in read.Scalars("loss")]
    assert losses == [(0, 1.0), (2, pytest.approx(1 / 3)), (4, pytest.approx(0.2))]
    (metric,) = read.Scalars("metrics/lamp/image_auroc")
    assert (metric.step, metric.value) == (40, 0.75)


def test_pictures_are_whole_and_in_rgb(read: Any) -> None:
    (image,) = read.Images("examples/chip 000")
    decoded = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert image.step == 3
    assert (decoded == (0, 0, 250)).all()  # BGR
    assert decoded.shape == (6, 10, 3)


def test_settings_results_and_the_model_are_texts(read: Any) -> None:
    assert text_of(read, "config") == {"lr": 0.1, "path": "a/b"}
    assert text_of(read, "summary") == {"best": 0.9, "status": "finished"}
    model = text_of(read, "model/lamp.onnx")
    assert model.pop("path").endswith("lamp.onnx")
    assert model == {"epoch": 3, "image_auroc": 0.9}
