"""Test pictures with heat maps: which ones, on which scale, under which names."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from patchline.calibration.judge import judge_each
from patchline.export.datasets import TestPicture, labelled_pictures
from patchline.export.evaluation.result import ScoredPicture
from patchline.export.tracking.examples import (
    fixed_examples,
    fixed_heat_maps,
    heat_maps,
    heat_scale,
)
from patchline.export.tracking.pictures import example_picture
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine import Prediction
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess

from ..drawn import CLASS_NAME

SIZE = ModelSize(height=32, width=48)


def picture(defect: str, name: str) -> TestPicture:
    return TestPicture(Path("test", defect, name), defect, None)


def infer(frames: Frame) -> Prediction:
    maps = frames.mean(axis=3, dtype=np.float32)
    return Prediction(maps.max(axis=(1, 2)), maps, maps)


JUDGE = functools.partial(judge_each, infer, SIZE)


def test_every_kind_is_shown_before_any_is_shown_twice() -> None:
    given = [picture("good", f"{at}.png") for at in range(5)]
    given += [picture("chip", f"{at}.png") for at in range(2)] + [picture("dent", "0.png")]
    chosen = [f"{item.defect}{item.path.stem}" for item in fixed_examples(given)]
    assert chosen == ["good0", "chip0", "dent0", "good1", "chip1", "good2"]
    assert [item.defect for item in fixed_examples(given, 2)] == ["good", "chip"]
    assert fixed_examples(given[:2]) == given[:2] and fixed_examples([]) == []


def test_the_scale_is_that_of_the_good_ones() -> None:
    good = [ScoredPicture(picture("good", f"{at}.png"), float(at)) for at in range(21)]
    bad = [ScoredPicture(picture("chip", f"{at}.png"), 50.0 + at) for at in range(3)]
    assert heat_scale([*good, *bad]) == pytest.approx(19.0)  # 20 of 21 are at or below it
    assert heat_scale(bad) == 51.0


def test_heat_maps_are_those_of_the_model(drawn_data: Path) -> None:
    pictures = labelled_pictures(drawn_data, CLASS_NAME)
    shown = heat_maps(JUDGE, pictures, SIZE, 120.0)
    assert list(shown) == ["good/000.png", "good/001.png", "chip/000.png", "contamination/000.png"]
    for item, found in zip(pictures, shown.values(), strict=True):
        frame = preprocess(read_image(item.path), SIZE)
        expected = example_picture(frame, frame.mean(axis=2, dtype=np.float32), 120.0)
        assert np.array_equal(found, expected)


def test_the_same_pictures_whatever_the_model_says(drawn_data: Path) -> None:
    pictures = labelled_pictures(drawn_data, CLASS_NAME)
    first, second = (
        fixed_heat_maps(JUDGE, [ScoredPicture(item, score(item)) for item in pictures], SIZE)
        for score in (lambda item: 100.0, lambda item: 1000.0 * item.is_defective + 1)
    )
    assert list(first) == list(second)
    assert list(first) == ["good/000.png", "chip/000.png", "contamination/000.png", "good/001.png"]
    expected = heat_maps(JUDGE, pictures, SIZE, 100.0)
    assert all(np.array_equal(found, expected[name]) for name, found in first.items())
