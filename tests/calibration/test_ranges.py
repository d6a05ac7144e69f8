"""Ranges over pictures, and the cache: found again only where everything is the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from patchline.calibration.ranges import (
    Ranges,
    cache_file,
    cache_folder,
    measure,
    read_cache,
    spread,
    write_cache,
)
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError, DataError, ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess

SIZE = ModelSize(height=12, width=16)
RANGES = Ranges(
    method="entropy", percentile=None, images=9, sha256="ab" * 32, limits={"a": 0.1, "b": 0.0}
)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i:02}.png" for i in range(10)]
    for i, path in enumerate(paths):
        image = rng.integers(0, 20 * (i + 1), (30, 20, 3)).astype(np.uint8)
        assert cv2.imwrite(str(path), image)
    return paths


def observe(frames: Frame) -> Mapping[str, npt.NDArray[np.float32]]:
    return {"pixels": frames.astype(np.float32) - 128, "doubled": 2 * frames.astype(np.float32)}


def test_ranges_are_over_all_pictures_as_the_camera_would_give_them(pictures: list[Path]) -> None:
    seen: list[int] = []
    found = measure(observe, pictures, "0" * 64, SIZE, "minmax", 99.0, seen.append)
    frames = np.stack([preprocess(read_image(path), SIZE) for path in pictures]).astype(float)
    assert found.limits == {
        "pixels": float(np.abs(frames - 128).max()),
        "doubled": float(2 * frames.max()),
    }
    assert (found.images, found.sha256, found.percentile) == (10, "0" * 64, None)
    assert seen == list(range(1, 11))


def test_percentile_is_over_the_values_of_all_pictures(pictures: list[Path]) -> None:
    found = measure(observe, pictures, "0" * 64, SIZE, "percentile", 90.0, lambda done: None)
    frames = np.stack([preprocess(read_image(path), SIZE) for path in pictures]).astype(float)
    expected = np.quantile(2 * frames, 0.9, method="inverted_cdf")
    assert expected <= found.limits["doubled"] <= expected + 512 / 2048
    assert found.percentile == 90.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_no_number_is_named_with_its_picture(
    pictures: list[Path], value: float
) -> None:
    def broken(frames: Frame) -> Mapping[str, npt.NDArray[np.float32]]:
        high = np.where(frames > 150, np.float32(value), np.float32(1))
        return {"fine": np.ones(3, np.float32), "relu_3": high}

    with pytest.raises(DataError, match=r"relu_3 is NaN or infinite for .*0[789]\.png"):
        measure(broken, pictures, "", SIZE, "minmax", 99.0, lambda done: None)


def test_a_picture_that_cannot_be_read_is_named(pictures: list[Path]) -> None:
    pictures[4].write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=r"04\.png"):
        measure(observe, pictures, "", SIZE, "minmax", 99.0, lambda done: None)


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (10, 10, list(range(10))),
        (9, 100, list(range(9))),
        (101, 11, list(range(0, 101, 10))),
        (20, 8, [0, 2, 5, 8, 10, 13, 16, 19]),
        (8, 8, list(range(8))),
    ],
)
def test_pictures_are_spread_evenly(there: int, asked: int, expected: list[int]) -> None:
    paths = [Path(f"{i}.png") for i in range(there)]
    assert spread(paths, asked) == tuple(paths[i] for i in expected)


@pytest.mark.parametrize("asked", range(8, 40))
def test_no_picture_is_taken_twice(asked: int) -> None:
    paths = [Path(f"{i}.png") for i in range(37)]
    chosen = spread(paths, asked)
    assert len(set(chosen)) == len(chosen) == min(asked, 37)
    assert (chosen[0], chosen[-1]) == (paths[0], paths[-1])


def test_too_few_pictures_are_refused_with_the_figures() -> None:
    with pytest.raises(ConfigurationError, match=r"7 good pictures.*at least 8"):
        spread([Path(f"{i}.png") for i in range(7)], 100)
    with pytest.raises(ConfigurationError, match=r"^5 calibration images.*at least 8"):
        spread([Path(f"{i}.png") for i in range(50)], 5)


def key(folder: Path, **changes: Any) -> Path:
    given = {
        "graph": b"graph",
        "pictures": "ab" * 32,
        "size": SIZE,
        "method": "percentile",
        "p": 99.9,
    }
    return cache_file(folder, **(given | changes))


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    file = key(tmp_path / "new" / "folder")
    assert read_cache(file, ["a", "b"]) is None
    write_cache(file, RANGES)
    assert read_cache(file, ["b", "a"]) == RANGES


@pytest.mark.parametrize(
    "changes",
    [
        {"graph": b"another"},
        {"pictures": "cd" * 32},
        {"size": ModelSize(height=16, width=12)},
        {"method": "minmax"},
        {"p": 99.99},
    ],
)
def test_anything_else_is_another_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert key(tmp_path, **changes) != key(tmp_path)
    assert key(tmp_path) == key(tmp_path)


def test_the_percentile_does_not_matter_to_other_methods(tmp_path: Path) -> None:
    assert key(tmp_path, method="minmax", p=90.0) == key(tmp_path, method="minmax", p=80.0)


DAMAGES = {
    "empty": "",
    "cut": RANGES.model_dump_json()[:-20],
    "no JSON": "\x80\x81",
    "NaN": RANGES.model_dump_json().replace("0.1", "NaN"),
    "infinite": RANGES.model_dump_json().replace("0.1", "1e999"),
    "negative": RANGES.model_dump_json().replace("0.1", "-0.1"),
    "a list": "[1, 2]",
    "newer": json.dumps(RANGES.model_dump() | {"schema_version": 2}),
    "unknown field": json.dumps(RANGES.model_dump() | {"more": 1}),
    "missing field": json.dumps({"schema_version": 1}),
    "other tensors": RANGES.model_copy(update={"limits": {"a": 1.0}}).model_dump_json(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_said_and_not_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = key(tmp_path)
    file.write_text(DAMAGES[damage], encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        assert read_cache(file, ["a", "b"]) is None
    assert "found anew" in caplog.text
    assert str(file) in caplog.text


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        write_cache(key(tmp_path / "file"), RANGES)
    assert "are not kept: cannot write" in caplog.text


def test_the_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "patchline" / "ranges"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "patchline" / "ranges"
