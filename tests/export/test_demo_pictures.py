"""The drawn data set: layout, determinism, and that it is whole or redone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.export.demo import pictures
from patchline.export.demo.pictures import plan_pictures, write_demo_data
from patchline.runtime.camera.test_pattern import DEFECTS
from patchline.runtime.errors import ConfigurationError, WriteError

SMALL: dict[str, Any] = {"good": 3, "test_good": 2, "test_defective": 6, "size": (72, 80)}


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for name in files_below(folder):
        total.update(name.encode() + (folder / name).read_bytes())
    return total.hexdigest()


def test_the_layout_is_mvtec(tmp_path: Path) -> None:
    folder = write_demo_data(tmp_path / "data", **SMALL)
    assert folder == tmp_path / "data" / "gasket"
    assert files_below(folder) == [
        "drawn.json",
        "ground_truth/chip/000_mask.png",
        "ground_truth/chip/001_mask.png",
        "ground_truth/contamination/000_mask.png",
        "ground_truth/missing/000_mask.png",
        "ground_truth/scratch/000_mask.png",
        "ground_truth/scratch/001_mask.png",
        "test/chip/000.png",
        "test/chip/001.png",
        "test/contamination/000.png",
        "test/good/000.png",
        "test/good/001.png",
        "test/missing/000.png",
        "test/scratch/000.png",
        "test/scratch/001.png",
        "train/good/000.png",
        "train/good/001.png",
        "train/good/002.png",
    ]
    assert names_in(tmp_path / "data") == ["gasket"]


def test_pictures_and_masks_have_the_asked_size_and_masks_fit(tmp_path: Path) -> None:
    folder = write_demo_data(tmp_path, **SMALL)
    for defect in DEFECTS:
        mask = cv2.imread(str(folder / f"ground_truth/{defect}/000_mask.png"), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(folder / f"test/{defect}/000.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None and picture is not None
        assert mask.shape == (72, 80)
        assert picture.shape == (72, 80, 3)
        assert set(np.unique(mask)) == {0, 255}


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_demo_data(tmp_path / name, **SMALL) for name in ("one", "two"))
    other = write_demo_data(tmp_path / "other", **SMALL, seed=1)
    assert digest(one) == digest(two) != digest(other)


def test_no_picture_is_in_two_parts_of_the_set(tmp_path: Path) -> None:
    folder = write_demo_data(tmp_path, **SMALL)
    drawn = [path.read_bytes() for path in sorted(folder.glob("t*/*/*.png"))]
    assert len(set(drawn)) == len(drawn) == 11


def test_sets_of_different_seeds_share_no_picture_and_none_with_the_test_pattern() -> None:
    numbers = {"good": 60, "test_good": 10, "test_defective": 10}
    sets = [{p.seed for p in plan_pictures(**numbers, seed=seed)} for seed in (0, 1)]
    assert len(sets[0]) == len(sets[1]) == 80
    assert not sets[0] & sets[1]
    assert min(sets[0]) >= 1_000_000


def test_the_demo_set_has_all_defects_about_equally_often() -> None:
    drawn = plan_pictures(good=60, test_good=10, test_defective=10, seed=0)
    counts = [sum(picture.defect == defect for picture in drawn) for defect in DEFECTS]
    assert counts == [3, 3, 2, 2]


def test_a_complete_set_is_kept(tmp_path: Path) -> None:
    folder = write_demo_data(tmp_path, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_demo_data(tmp_path, **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_parameters_redraw_the_whole_set(tmp_path: Path) -> None:
    write_demo_data(tmp_path, **SMALL)
    folder = write_demo_data(tmp_path, **{**SMALL, "good": 2})
    assert not (folder / "train/good/002.png").exists()
    assert (folder / "train/good/001.png").exists()


@pytest.mark.parametrize("lost", ["train/good/001.png", "ground_truth/chip/000_mask.png"])
def test_a_set_that_lost_a_file_is_redrawn(tmp_path: Path, lost: str) -> None:
    folder = write_demo_data(tmp_path, **SMALL)
    before = digest(folder)
    (folder / lost).unlink()
    assert digest(write_demo_data(tmp_path, **SMALL)) == before


def test_a_damaged_record_is_redrawn(tmp_path: Path) -> None:
    folder = write_demo_data(tmp_path, **SMALL)
    before = digest(folder)
    (folder / "drawn.json").write_text("{")
    assert digest(write_demo_data(tmp_path, **SMALL)) == before


def test_an_interrupted_run_leaves_nothing_and_the_next_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def interrupt(path: Path, image: object) -> None:
        drawn.append(path)
        if len(drawn) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "_write_png", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_demo_data(tmp_path, **SMALL)
    assert names_in(tmp_path) == []
    assert len(files_below(write_demo_data(tmp_path, **SMALL))) == 18


def test_an_interrupted_redraw_keeps_the_old_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(write_demo_data(tmp_path, **SMALL))

    def interrupt(path: Path, image: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "_write_png", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path, **SMALL, seed=1)
    assert digest(tmp_path / "gasket") == before


def test_what_a_killed_run_left_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".gasket.new/train/good").mkdir(parents=True)
    (tmp_path / ".gasket.new/train/good/000.png").write_bytes(b"half a pict")
    write_demo_data(tmp_path, **SMALL)
    assert names_in(tmp_path) == ["gasket"]


def test_a_set_that_was_not_drawn_here_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "gasket/train/good/mine.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"precious")
    with pytest.raises(WriteError, match=r"was not drawn by this demo.*--out"):
        write_demo_data(tmp_path, **SMALL)
    assert own.read_bytes() == b"precious"


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(WriteError, match=r"not a folder|in the way"):
        write_demo_data(tmp_path / "data", **SMALL)


@pytest.mark.parametrize(
    "wrong", [{"good": 0}, {"test_good": -1}, {"test_defective": -1}, {"seed": -1}]
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1 good picture"):
        write_demo_data(tmp_path, **{**SMALL, **wrong})
    assert names_in(tmp_path) == []


def test_more_pictures_than_seeds_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 100000"):
        plan_pictures(good=100_000, test_good=1, test_defective=0, seed=0)
