"""Every picture is judged as the camera would, and nothing that is no number gets through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchline.calibration.judge import judge_each, judge_pictures
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine import Prediction, open_engine
from patchline.runtime.errors import EngineError, ImageReadError
from patchline.runtime.preprocess import Frame
from tests.runtime.fakes import FakeEngine
from tests.runtime.tiny_model import SIZE

from .conftest import Write


def test_scores_and_maps_are_the_engines(lamp: Path, write: Write) -> None:
    paths = write("line", [10, 200, 30])
    with open_engine(lamp, provider="cpu") as engine:
        judged = list(judge_pictures(engine, paths))
    assert [item.path for item in judged] == paths
    assert [item.score for item in judged] == [10.0, 200.0, 30.0]
    assert judged[1].anomaly_map.shape == (SIZE, SIZE)
    assert (judged[1].anomaly_map == 200).all() and (judged[1].influence_map == 100).all()


class Broken(FakeEngine):
    """An engine whose second picture gives something that is no number."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__()
        self.name, self.value, self.calls = name, value, 0

    def infer(self, frames: Frame) -> Prediction:
        self.calls += 1
        arrays = {
            "image_score": np.zeros(1, np.float32),
            "anomaly_map": np.zeros((1, SIZE, SIZE), np.float32),
            "influence_map": np.zeros((1, SIZE, SIZE), np.float32),
        }
        if self.calls == 2:
            arrays[self.name].flat[-1] = self.value
        return Prediction(**arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["image_score", "anomaly_map", "influence_map"])
def test_what_is_no_number_names_the_picture(write: Write, name: str, value: float) -> None:
    paths = write("line", [1, 2, 3])
    judging = judge_pictures(Broken(name, value), paths)
    assert next(judging).path.name == "000.png"
    with pytest.raises(EngineError, match=rf"the {name} of .*001\.png holds NaN or infinite"):
        next(judging)


def test_an_unreadable_picture_is_an_error_or_left_out_and_told(lamp: Path, write: Write) -> None:
    paths = write("line", [1, 2, 3])
    paths[1].write_bytes(b"broken")
    told: list[ImageReadError] = []
    with open_engine(lamp, provider="cpu") as engine:
        with pytest.raises(ImageReadError, match=r"001\.png"):
            list(judge_pictures(engine, paths))
        judged = list(judge_pictures(engine, paths, told.append))
    assert [item.score for item in judged] == [1.0, 3.0]
    assert len(told) == 1 and "001.png" in str(told[0])


def test_any_model_judges_and_says_what_to_do(write: Write) -> None:
    paths = write("line", [10, 200])

    def infer(frames: Frame) -> Prediction:
        maps = np.log(frames.mean(axis=3, dtype=np.float32) - 10)
        return Prediction(maps.max(axis=(1, 2)), maps, maps)

    size = ModelSize(height=SIZE, width=2 * SIZE)
    with np.errstate(divide="ignore"):
        judging = judge_each(infer, size, paths[::-1], remedy="Look at the lamp")
        first = next(judging)
        with pytest.raises(EngineError, match=r"000\.png holds NaN .* values\. Look at the lamp$"):
            next(judging)
    assert first.path == paths[1] and first.score == np.log(np.float32(190))
    assert first.anomaly_map.shape == (SIZE, 2 * SIZE)
