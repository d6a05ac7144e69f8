"""Ranges of a graph that classes share: whose pictures are looked at, and what the ranges cover."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.calibration.ranges import spread
from patchline.export.datasets import GoodPictures
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.calibration_pictures import (
    calibration_pictures,
    check_enough,
    even_shares,
)
from patchline.runtime.errors import ConfigurationError

from .quantizable import SIZE, activations_of, frames_of, small_graph


def named(name: str, count: int) -> GoodPictures:
    return GoodPictures(name, Path(name), tuple(Path(f"{name}/{i:03}.png") for i in range(count)))


def count_of(name: str, chosen: tuple[Path, ...]) -> int:
    return sum(path.parent.name == name for path in chosen)


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6), total=st.integers(0, 150))
def test_shares_are_those_of_taking_turns(counts: list[int], total: int) -> None:
    expected = [0] * len(counts)
    left = min(total, sum(counts))
    while left:
        for index, count in enumerate(counts):
            if left and expected[index] < count:
                expected[index], left = expected[index] + 1, left - 1
    assert even_shares(counts, total) == expected


def test_one_class_is_spread_as_ever() -> None:
    lid = named("lid", 209)
    for images in (8, 57, 100, 209, 500):
        assert calibration_pictures([lid], images) == spread(lid.paths, images)


def test_several_classes_give_as_many_each_evenly_spread() -> None:
    cap, lid, nut = named("cap", 300), named("lid", 10), named("nut", 61)
    chosen = calibration_pictures([nut, cap, lid], 100)
    assert len(chosen) == len(set(chosen)) == 100
    assert [count_of(name, chosen) for name in ("cap", "lid", "nut")] == [45, 10, 45]
    at = [int(path.stem) for path in chosen if path.parent.name == "cap"]
    assert (at[0], at[-1]) == (0, 299) and set(np.diff(at)) <= {6, 7}
    assert chosen == calibration_pictures([lid, nut, cap], 100)
    assert len(calibration_pictures([cap, lid, nut], 1000)) == 371


def test_a_single_picture_of_each_is_enough() -> None:
    classes = [named(f"part{i}", 5) for i in range(9)]
    chosen = calibration_pictures(classes, 9)
    assert [count_of(one.class_name, chosen) for one in classes] == [1] * 9


def test_too_few_are_refused() -> None:
    classes = [named(f"part{i}", 5) for i in range(9)]
    with pytest.raises(ConfigurationError, match=r"8 calibration images.* 9 classes.* to 9 or"):
        calibration_pictures(classes, 8)
    with pytest.raises(ConfigurationError, match="6 good pictures are there"):
        calibration_pictures([named("cap", 3), named("lid", 3)], 100)
    with pytest.raises(ConfigurationError, match="7 calibration images were asked for"):
        calibration_pictures([named("cap", 30), named("lid", 30)], 7)
    check_enough(9, 9)


def test_ranges_cover_both_classes_and_are_kept_apart_from_ones_own(tmp_path: Path) -> None:
    """Against the largest values of both by numpy in float64, from the same cache folder."""
    frames = {"blue": frames_of(9, seed=1), "red": frames_of(9, seed=2)}
    frames["blue"][..., 1:] //= 8
    frames["red"][..., :2] //= 8
    classes = {}
    for name, drawn in frames.items():
        classes[name] = named(name, 9)
        (tmp_path / name).mkdir()
        for path, frame in zip(classes[name].paths, drawn, strict=True):
            assert cv2.imwrite(str(tmp_path / path), frame)
        paths = tuple(tmp_path / path for path in classes[name].paths)
        classes[name] = GoodPictures(name, tmp_path / name, paths)

    def limits(*names: str) -> dict[str, float]:
        chosen = calibration_pictures([classes[name] for name in names], 18)
        found = find_ranges(small_graph(), chosen, SIZE, "minmax", images=len(chosen), cache=cache)
        assert found.images == len(chosen)
        return found.limits

    cache = tmp_path / "cache"
    alone = {name: limits(name) for name in frames}
    both = limits("red", "blue")
    expected = {name: activations_of(drawn) for name, drawn in frames.items()}
    tensors = set(expected["red"]) - {"pixels"}  # theirs is that of every frame
    for name in tensors:
        largest = max(float(np.abs(values[name]).max()) for values in expected.values())
        assert both[name] == pytest.approx(largest, rel=1e-5)
        assert both[name] == max(found[name] for found in alone.values())
    # Either class's own ranges clip what the other one's pictures give.
    for found in alone.values():
        assert min(found[name] / both[name] for name in tensors) < 0.8
    assert len(list(cache.iterdir())) == 3
