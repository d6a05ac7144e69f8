"""What is listed of an archive, and what tells that it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchline.runtime.archive.listing import ListedPicture, list_archive, listing_digest
from patchline.runtime.errors import SourceOpenError


def test_a_folder_is_listed_in_natural_order_with_sizes_and_times(pictures: Path) -> None:
    archive = list_archive(pictures)
    assert archive.root == pictures
    names = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]
    assert [one.path for one in archive.pictures] == names
    found = (pictures / "late/2.bmp").stat()
    assert archive.pictures[-1] == ListedPicture("late/2.bmp", found.st_size, found.st_mtime_ns)


def test_a_pattern_is_relative_to_the_folder_before_it(pictures: Path) -> None:
    archive = list_archive(pictures / "**" / "*.png")
    assert archive.root == pictures
    assert [one.path for one in archive.pictures] == ["1.png", "10.png", "late/1.png"]


def test_one_picture_is_an_archive_too(pictures: Path) -> None:
    archive = list_archive(pictures / "1.png")
    assert (archive.root, [one.path for one in archive.pictures]) == (pictures, ["1.png"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "nowhere does not exist. Give --images a folder"),
        ("empty", "empty holds no picture"),
        ("empty/*.png", "names 0 files and no picture among them"),
    ],
)
def test_an_archive_without_pictures_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceOpenError, match=sentence.replace(".", r"\.")):
        list_archive(tmp_path / name)


def test_a_link_that_leads_nowhere_is_listed(pictures: Path) -> None:
    (pictures / "3.png").symlink_to("gone.png")
    assert ListedPicture("3.png", 0, 0) in list_archive(pictures).pictures


def test_a_name_that_is_no_utf8_is_written_in_ascii(pictures: Path) -> None:
    odd = os.fsencode(pictures) + b"/caf\xe9.png"
    try:
        with open(odd, "wb"):  # noqa: PTH123 - bytes
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert r"caf\udce9.png" in [one.path for one in list_archive(pictures).pictures]


def test_the_digest_tells_paths_sizes_times_and_order() -> None:
    first, second = ListedPicture("a", 1, 2), ListedPicture("b", 1, 2)
    listings = [
        [first, second],
        [second, first],
        [first],
        [first, ListedPicture("b", 2, 2)],
        [first, ListedPicture("b", 1, 3)],
        [first, ListedPicture("c", 1, 2)],
    ]
    assert len({listing_digest(listing) for listing in listings}) == len(listings)
    assert listing_digest([first, second]) == listing_digest(iter([first, second]))
