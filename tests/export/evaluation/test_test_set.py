"""The test set of a class: every way its masks can be wrong is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from patchline.export.evaluation.test_set import TestSet, load_test_set
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ClassNotFoundError, ImageReadError
from tests.runtime.tiny_model import SIZE

from .lamp import CLASS_NAME, box, noise, write, write_lamps

MODEL_SIZE = ModelSize(height=SIZE, width=SIZE)


@pytest.fixture
def lamps(tmp_path: Path) -> Path:
    return write_lamps(tmp_path)


@pytest.fixture
def masks(lamps: Path) -> Path:
    return lamps / "ground_truth" / "bright"


def load(lamps: Path) -> TestSet:
    return load_test_set(lamps.parent, lamps.name, MODEL_SIZE)


def problem(lamps: Path) -> str:
    """The only problem; with one, there are no masks, and all pictures."""
    test_set = load(lamps)
    (sentence,) = test_set.problems
    assert test_set.masks == {}
    assert test_set.notes == ()
    assert test_set.pictures
    return sentence


def test_a_whole_test_set(lamps: Path) -> None:
    test_set = load(lamps)
    assert [p.defect for p in test_set.pictures] == ["good"] * 3 + ["bright"] * 4
    assert (test_set.problems, test_set.notes) == ((), ())
    assert set(test_set.masks) == {p.path for p in test_set.pictures if p.is_defective}
    for mask in test_set.masks.values():
        assert np.array_equal(mask, box() > 0)


def test_sizes_may_differ_within_a_class_and_need_not_be_square(lamps: Path, masks: Path) -> None:
    write(lamps / "test" / "bright" / "001.png", noise(1, 0, 255, (40, 90)))
    write(masks / "001_mask.png", box((40, 90)))
    test_set = load(lamps)
    assert test_set.problems == ()
    assert {mask.shape for mask in test_set.masks.values()} == {(SIZE, SIZE)}


def test_masks_named_like_the_picture_and_zero_masks_of_good_pictures(
    lamps: Path, masks: Path
) -> None:
    (masks / "000_mask.png").rename(masks / "000.bmp")
    write(masks / "000.bmp", box())
    write(lamps / "ground_truth" / "good" / "000_mask.png", box() * 0)
    assert load(lamps).problems == ()
    assert len(load(lamps).masks) == 4


def test_no_mask_at_all_is_a_note(lamps: Path) -> None:
    shutil.rmtree(lamps / "ground_truth")
    test_set = load(lamps)
    assert (test_set.masks, test_set.problems) == ({}, ())
    (note,) = test_set.notes
    assert "there are no masks in" in note and "pixel metrics are not" in note
    (lamps / "ground_truth" / "bright").mkdir(parents=True)
    (lamps / "ground_truth" / "bright" / "readme.txt").write_text("soon")
    assert load(lamps) == test_set


def test_without_defective_pictures_no_mask_is_missed(tmp_path: Path) -> None:
    assert load(write_lamps(tmp_path, defective=0)) == load_test_set(
        tmp_path, CLASS_NAME, MODEL_SIZE
    )
    assert load(tmp_path / CLASS_NAME).notes == ()


def test_defective_pictures_without_a_mask(masks: Path, lamps: Path) -> None:
    (masks / "001_mask.png").unlink()
    assert problem(lamps) == (
        "defective pictures without a mask (1): lamp/test/bright/001.png. "
        "Expected ground_truth/DEFECT/NAME_mask.png for each"
    )


def test_three_files_are_named_and_the_others_counted(tmp_path: Path) -> None:
    lamps = write_lamps(tmp_path, defective=7)
    for path in sorted((lamps / "ground_truth" / "bright").iterdir())[1:]:
        path.unlink()
    assert (
        "(6): lamp/test/bright/001.png, lamp/test/bright/002.png, lamp/test/bright/003.png "
        "and 3 more. Expected"
    ) in problem(lamps)


@pytest.mark.parametrize(
    "where", ["bright/009_mask.png", "other/000_mask.png", "000_mask.png", "bright/000_mask_.png"]
)
def test_a_mask_without_a_test_picture(lamps: Path, where: str) -> None:
    write(lamps / "ground_truth" / where, box())
    found = load(lamps)
    (sentence,) = found.problems
    assert f"masks without a test picture (1): lamp/ground_truth/{where}." in sentence
    assert len(found.masks) == 4  # it harms no figure


def test_two_masks_for_one_picture(lamps: Path, masks: Path) -> None:
    write(masks / "002.png", box())
    assert (
        "several masks (1): lamp/test/bright/002.png (002_mask.png and 002.png). Keep one"
    ) in problem(lamps)


def test_a_mask_that_is_all_zero(lamps: Path, masks: Path) -> None:
    write(masks / "000_mask.png", box() * 0)
    assert "all zero (1): lamp/ground_truth/bright/000_mask.png." in problem(lamps)


def test_a_mask_that_vanishes_at_model_size(lamps: Path, masks: Path) -> None:
    pixels = np.zeros((4 * SIZE, 4 * SIZE), np.uint8)
    pixels[0, 0] = 255
    write(lamps / "test" / "bright" / "000.png", noise(1, 0, 255, pixels.shape))
    write(masks / "000_mask.png", pixels)
    assert "gone at the size of the model (1): lamp/ground_truth/bright/000" in problem(lamps)


def test_a_mask_of_another_size(lamps: Path, masks: Path) -> None:
    write(masks / "003_mask.png", box((SIZE, 2 * SIZE)))
    assert "(1): lamp/ground_truth/bright/003_mask.png (32 x 64, picture 32 x 32)." in problem(
        lamps
    )


def test_a_mask_that_cannot_be_read(lamps: Path, masks: Path) -> None:
    (masks / "003_mask.png").write_bytes(b"")
    assert f"(1): {masks / '003_mask.png'}: the file is empty. Replace" in problem(lamps)


def test_a_defect_marked_in_a_good_picture(lamps: Path) -> None:
    write(lamps / "ground_truth" / "good" / "001_mask.png", box())
    assert "good picture (1): lamp/ground_truth/good/001_mask.png. Move" in problem(lamps)


def test_all_problems_are_said_at_once(lamps: Path, masks: Path) -> None:
    (masks / "000_mask.png").unlink()
    write(masks / "001_mask.png", box() * 0)
    write(masks / "x_mask.png", box())
    assert len(load(lamps).problems) == 3


def test_an_unreadable_defective_picture_is_named(lamps: Path) -> None:
    (lamps / "test" / "bright" / "002.png").write_bytes(b"broken")
    with pytest.raises(ImageReadError, match=r"bright/002\.png"):
        load(lamps)


def test_a_class_without_test_pictures_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "plain" / "000.png", noise(1, 0, 255))
    assert load(tmp_path / "plain") == TestSet((), {}, (), ())


def test_a_missing_class_says_which_exist(lamps: Path) -> None:
    with pytest.raises(ClassNotFoundError, match=r"no class pill\. .*there: lamp\. --cls NAME"):
        load_test_set(lamps.parent, "pill", MODEL_SIZE)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../lamp"])
def test_what_is_no_class_name_is_refused(lamps: Path, name: str) -> None:
    with pytest.raises(ClassNotFoundError, match="is no class name"):
        load_test_set(lamps.parent, name, MODEL_SIZE)


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassNotFoundError, match="nowhere does not exist"):
        load_test_set(tmp_path / "nowhere", "lamp", MODEL_SIZE)
