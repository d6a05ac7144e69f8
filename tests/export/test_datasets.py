"""Finding pictures: MVTec layout, plain folders, and every way a folder can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from patchline.export.datasets import (
    digest_of,
    find_classes,
    good_pictures,
    labelled_folder,
    labelled_pictures,
    select_classes,
)
from patchline.runtime.errors import ClassNotFoundError, DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """``bottle`` in MVTec layout and ``lids``, a plain folder."""
    root = tmp_path / "data"
    bottle = root / "bottle"
    touch(*(bottle / "train" / "good" / f"{i:03}.png" for i in range(3)))
    touch(bottle / "test" / "good" / "000.png", bottle / "test" / "broken" / "000.png")
    touch(bottle / "test" / "broken" / "001.jpg", bottle / "test" / "a_dent" / "000.png")
    touch(bottle / "ground_truth" / "broken" / "000_mask.png")
    touch(bottle / "ground_truth" / "broken" / "001.png")
    touch(root / "lids" / "b.jpg", root / "lids" / "a.bmp")
    return root


class TestGoodPictures:
    def test_mvtec_layout_takes_the_good_training_pictures_only(self, data: Path) -> None:
        found = good_pictures(data, "bottle")
        assert found.class_name == "bottle"
        assert found.folder == data / "bottle" / "train" / "good"
        assert names(found.paths) == ["000.png", "001.png", "002.png"]

    def test_a_plain_folder_is_taken_whole_and_sorted(self, data: Path) -> None:
        found = good_pictures(data, "lids")
        assert found.folder == data / "lids"
        assert names(found.paths) == ["a.bmp", "b.jpg"]

    @pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"])
    def test_every_suffix_counts_in_any_case(self, tmp_path: Path, suffix: str) -> None:
        wanted = [f"1.{suffix}", f"2.{suffix.upper()}", f"3.{suffix.title()}"]
        touch(*(tmp_path / "lids" / name for name in wanted))
        assert names(good_pictures(tmp_path, "lids").paths) == wanted

    def test_what_is_no_picture_is_left_out(self, data: Path) -> None:
        folder = data / "lids"
        touch(folder / ".hidden.png", folder / "._a.bmp", folder / "notes.txt", folder / "png")
        (folder / "folder.png").mkdir()
        assert names(good_pictures(data, "lids").paths) == ["a.bmp", "b.jpg"]

    def test_a_link_to_a_picture_counts_and_a_broken_one_does_not(self, data: Path) -> None:
        folder = data / "lids"
        (folder / "c.png").symlink_to(folder / "a.bmp")
        (folder / "d.png").symlink_to(folder / "nowhere.png")
        assert names(good_pictures(data, "lids").paths) == ["a.bmp", "b.jpg", "c.png"]

    def test_a_missing_class_says_which_exist(self, data: Path) -> None:
        with pytest.raises(ClassNotFoundError, match=r"has no class pill\. It has: bottle, lids"):
            good_pictures(data, "pill")

    def test_no_class_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ClassNotFoundError, match=r"has no class pill, nor any other"):
            good_pictures(tmp_path, "pill")

    def test_a_missing_data_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ClassNotFoundError, match=r"nowhere does not exist\. Give --data"):
            good_pictures(tmp_path / "nowhere", "bottle")

    @pytest.mark.parametrize("name", ["bottle", "lids"])
    def test_a_data_folder_that_is_a_class_says_what_to_type(self, data: Path, name: str) -> None:
        with pytest.raises(ClassNotFoundError) as caught:
            good_pictures(data / name, "pill")
        assert f"--data {data} --cls {name}" in str(caught.value)

    @pytest.mark.parametrize("name", ["", ".", "..", "../data/lids", "bottle/train", "/", "lids/"])
    def test_a_class_is_a_folders_name(self, data: Path, name: str) -> None:
        with pytest.raises(ClassNotFoundError, match="is no class name"):
            good_pictures(data, name)

    def test_an_absolute_path_is_no_class_name(self, data: Path) -> None:
        with pytest.raises(ClassNotFoundError, match="is no class name"):
            good_pictures(data, str(data / "lids"))

    @pytest.mark.parametrize("inner", ["train/good", "train", "."])
    def test_an_empty_class_says_where_it_looked(self, data: Path, inner: str) -> None:
        (data / "pill" / inner).mkdir(parents=True)
        touch(data / "pill" / "readme.txt")
        with pytest.raises(DataError, match=r"class pill has no good pictures: .* holds no png"):
            good_pictures(data, "pill")

    def test_a_train_folder_is_never_mixed_with_pictures_beside_it(self, data: Path) -> None:
        touch(data / "bottle" / "stray.png")
        assert "stray.png" not in names(good_pictures(data, "bottle").paths)


class TestClasses:
    def test_classes_are_folders_with_pictures(self, data: Path) -> None:
        (data / "empty").mkdir()
        touch(data / ".cache" / "a.png", data / "stray.png", data / "notes" / "a.txt")
        assert find_classes(data) == ["bottle", "lids"]

    def test_several_are_selected_in_the_order_given(self, data: Path) -> None:
        selected = select_classes(data, ["lids", "bottle"])
        assert [item.class_name for item in selected] == ["lids", "bottle"]

    def test_a_class_named_twice_is_taken_once(self, data: Path) -> None:
        selected = select_classes(data, ["lids", "bottle", "lids"])
        assert [item.class_name for item in selected] == ["lids", "bottle"]

    @pytest.mark.parametrize("wanted", [["all"], ["lids", "all"]])
    def test_all_is_every_class(self, data: Path, wanted: list[str]) -> None:
        selected = select_classes(data, wanted)
        assert {item.class_name for item in selected} == {"bottle", "lids"}
        assert len(selected) == 2

    def test_a_class_really_named_all_is_just_that(self, data: Path) -> None:
        touch(data / "all" / "a.png")
        assert [item.class_name for item in select_classes(data, ["all"])] == ["all"]

    def test_all_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ClassNotFoundError, match="holds no class folder"):
            select_classes(tmp_path, ["all"])

    def test_one_wrong_name_among_several_is_an_error(self, data: Path) -> None:
        with pytest.raises(ClassNotFoundError, match="pill"):
            select_classes(data, ["bottle", "pill"])

    def test_a_data_folder_that_is_a_file(self, data: Path) -> None:
        with pytest.raises(ClassNotFoundError, match="does not exist"):
            select_classes(data / "lids" / "a.bmp", ["all"])


class TestLabelledPictures:
    def test_good_ones_come_first_and_masks_are_found(self, data: Path) -> None:
        truth = data / "bottle" / "ground_truth" / "broken"
        found = labelled_pictures(data, "bottle")
        assert [(item.defect, item.path.name, item.mask) for item in found] == [
            ("good", "000.png", None),
            ("a_dent", "000.png", None),
            ("broken", "000.png", truth / "000_mask.png"),
            ("broken", "001.jpg", truth / "001.png"),
        ]
        assert [item.is_defective for item in found] == [False, True, True, True]

    def test_the_folder_of_a_class_that_has_them(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert labelled_folder(good_pictures(data, "lids")) is None
        monkeypatch.chdir(data)
        assert labelled_folder(good_pictures(Path(), "bottle")) == data.resolve() / "bottle"
        shutil.rmtree(data / "bottle" / "test")
        assert labelled_folder(good_pictures(data, "bottle")) is None

    def test_a_plain_folder_has_none(self, data: Path) -> None:
        assert labelled_pictures(data, "lids") == []

    def test_a_name_that_only_starts_alike_is_no_mask(self, data: Path) -> None:
        truth = data / "bottle" / "ground_truth" / "broken"
        (truth / "000_mask.png").rename(truth / "0001_mask.png")
        by_name = {item.path.name: item.mask for item in labelled_pictures(data, "bottle")[2:]}
        assert by_name["000.png"] is None

    @pytest.mark.parametrize("stem", ["[1]", "a*b", "a?"])
    def test_names_that_look_like_patterns_are_names(self, data: Path, stem: str) -> None:
        bottle = data / "bottle"
        touch(bottle / "test" / "odd" / f"{stem}.png")
        mask = bottle / "ground_truth" / "odd" / f"{stem}_mask.png"
        touch(mask, bottle / "ground_truth" / "odd" / "1_mask.png")
        odd = [item for item in labelled_pictures(data, "bottle") if item.defect == "odd"]
        assert [item.mask for item in odd] == [mask]


class TestDigest:
    def test_names_and_places_do_not_count(self, data: Path, tmp_path: Path) -> None:
        paths = good_pictures(data, "bottle").paths
        moved = tmp_path / "moved"
        moved.mkdir()
        copies = tuple(Path(shutil.copy(path, moved / f"x{i}.jpg")) for i, path in enumerate(paths))
        assert digest_of(copies) == digest_of(paths)

    def test_order_and_content_count(self, data: Path) -> None:
        paths = good_pictures(data, "bottle").paths
        digest = digest_of(paths)
        assert digest_of(paths[::-1]) != digest
        assert digest_of(paths[:-1]) != digest
        paths[0].write_bytes(b"other")
        assert digest_of(paths) != digest

    def test_where_one_file_ends_and_the_next_begins_counts(self, tmp_path: Path) -> None:
        for name, content in (("a", b"12"), ("b", b"3"), ("c", b"1"), ("d", b"23")):
            (tmp_path / name).write_bytes(content)
        a, b, c, d = (tmp_path / name for name in "abcd")
        assert digest_of((a, b)) != digest_of((c, d))
