"""The whole line: drawn pictures, exported model, ``run-camera`` in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.runtime.camera.test_pattern import draw_part
from patchline.runtime.engine import open_engine
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess
from tests.programs import run_program

from .drawn import CLASS_NAME, write_modes


def run_camera(model: Path, source: object, *words: object) -> list[dict[str, Any]]:
    """The JSON lines of a run that went well."""
    line = ["--engine", model, "--source", source, "--headless", "--provider", "cpu", *words]
    finished = run_program(
        [sys.executable, "-m", "patchline.runtime.cli.run_camera", *map(str, line)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads(text) for text in finished.stdout.splitlines()]


def scores_of(model: Path, images: list[np.ndarray]) -> list[float]:
    """What the engine gives, frame by frame."""
    with open_engine(model, provider="cpu") as engine:
        frames = [preprocess(image, engine.manifest.model_size) for image in images]
        return [float(engine.infer(frame[np.newaxis]).image_score[0]) for frame in frames]


def test_a_test_folder_is_judged_and_annotated(
    exported: Path, drawn_data: Path, tmp_path: Path
) -> None:
    source, annotated = drawn_data / CLASS_NAME / "test", tmp_path / "annotated"
    verdicts = run_camera(exported, source, "--output", annotated)
    files = [verdict["file"] for verdict in verdicts]
    assert files == ["chip/000.png", "contamination/000.png", "good/000.png", "good/001.png"]
    expected = scores_of(exported, [read_image(source / file) for file in files])
    with open_engine(exported) as engine:
        threshold = engine.manifest.threshold.value
    for verdict, score in zip(verdicts, expected, strict=True):
        assert verdict["score"] == pytest.approx(score, rel=1e-5)
        assert verdict["threshold"] == threshold
        assert verdict["anomalous"] == (verdict["score"] >= threshold)
    assert len(set(expected)) == 4
    for file in files:
        picture, drawn = cv2.imread(str(annotated / file)), cv2.imread(str(source / file))
        assert picture is not None and picture.shape == drawn.shape
        assert not np.array_equal(picture, drawn)


def test_the_generated_camera_shows_frames_of_another_size(exported: Path) -> None:
    uri = "test://?frames=5&fps=0&width=200&height=150&defect_every=0&seed=0"
    verdicts = run_camera(exported, uri)
    assert [verdict["frame"] for verdict in verdicts] == list(range(5))
    expected = scores_of(exported, [draw_part(seed, size=(150, 200))[0] for seed in range(5)])
    assert [verdict["score"] for verdict in verdicts] == pytest.approx(expected, rel=1e-5)


def test_a_picture_scores_the_same_in_every_mode_in_fit_and_camera(
    fitted: FittedModel, exported: Path, tmp_path: Path
) -> None:
    paths = write_modes(tmp_path / "modes")
    (tmp_path / "modes" / "000.png").unlink()  # the coloured original
    verdicts = run_camera(exported, tmp_path / "modes")
    assert {verdict["file"] for verdict in verdicts} == {path.name for path in paths.values()}
    frames = read_frames(tuple(paths.values()), fitted.detector.embedder.size)
    in_fit = fitted.detector.predict(torch.from_numpy(frames))[0].tolist()
    by_file = {verdict["file"]: verdict["score"] for verdict in verdicts}
    for (mode, path), score in zip(paths.items(), in_fit, strict=True):
        assert by_file[path.name] == pytest.approx(in_fit[0], rel=1e-4), mode
        assert score == pytest.approx(in_fit[0], rel=1e-5), mode


def test_a_training_picture_is_good_and_a_broken_one_is_not(
    exported: Path, drawn_data: Path
) -> None:
    good = read_image(drawn_data / CLASS_NAME / "train" / "good" / "000.png")
    broken = good.copy()
    broken[20:60, 20:60] = (0, 0, 255)
    with open_engine(exported) as engine:
        threshold = engine.manifest.threshold.value
    normal, anomalous = scores_of(exported, [good, broken])
    assert normal < threshold < anomalous
