"""Every picture in exactly one part, in order, and what is done is never touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.archive.listing import ListedPicture
from patchline.runtime.archive.parts import Changes, Part, follow, split
from patchline.runtime.errors import DataError

SIZES = st.integers(1, 7)
NAMES = st.lists(st.integers(0, 60).map("{}.png".format), unique=True, max_size=40)


def listed(*names: str) -> list[ListedPicture]:
    return [ListedPicture(name, 10, 20) for name in names]


def pictures_of(parts: list[Part]) -> list[ListedPicture]:
    return [picture for part in parts for picture in part.pictures]


@given(NAMES, SIZES, st.integers(0, 9))
def test_a_listing_is_cut_without_loss_and_in_order(
    names: list[str], size: int, first: int
) -> None:
    parts = split(listed(*names), size, first)
    assert pictures_of(parts) == listed(*names)
    assert [part.number for part in parts] == list(range(first, first + len(parts)))
    assert all(len(part.pictures) == size for part in parts[:-1])
    assert all(1 <= len(part.pictures) <= size for part in parts)


@given(NAMES, NAMES, SIZES, st.data())
def test_an_archive_that_changes_has_each_picture_once_and_keeps_what_is_done(
    before: list[str], now: list[str], size: int, data: st.DataObject
) -> None:
    parts = split(listed(*before), size)
    numbers = [part.number for part in parts]
    done = data.draw(st.sets(st.sampled_from(numbers)) if numbers else st.just(set[int]()))
    scored = pictures_of([part for part in parts if part.number in done])
    # What was scored is still there; all else may have come, gone or been written again.
    found = [*scored, *(one for one in listed(*now) if one not in scored)]
    found = [one if one in scored else replace(one, mtime_ns=30) for one in found]
    followed, changes = follow(parts, done, found, size)
    assert sorted(pictures_of(followed), key=lambda one: one.path) == sorted(
        found, key=lambda one: one.path
    )
    assert [part for part in followed if part.number in done] == [
        part for part in parts if part.number in done
    ]
    assert [part.number for part in followed] == sorted({part.number for part in followed})
    old = {one.path for one in listed(*before)}
    assert changes.new == sum(one.path not in old for one in found)
    new = [one for part in followed if part.number not in numbers for one in part.pictures]
    assert new == [one for one in found if one.path not in old]
    # A third call with nothing changed changes nothing.
    assert follow(followed, done, found, size) == (followed, Changes())


def test_an_archive_that_grew_gets_new_parts_behind_the_old_ones() -> None:
    parts = split(listed("1", "2", "3"), 2)
    followed, changes = follow(parts, {0, 1}, listed("0", "1", "2", "2b", "3", "4"), 2)
    assert followed[:2] == parts
    assert [[one.path for one in part.pictures] for part in followed[2:]] == [["0", "2b"], ["4"]]
    assert [part.number for part in followed] == [0, 1, 2, 3]
    assert changes == Changes(new=3)


def test_pictures_that_were_not_scored_may_go_and_change() -> None:
    parts = split(listed("1", "2", "3", "4", "5"), 2)
    now = [*listed("1", "2"), ListedPicture("3", 11, 20)]
    followed, changes = follow(parts, {0}, now, 2)
    assert followed == [parts[0], Part(1, (now[2],))]
    assert changes == Changes(gone=2, changed=1)


def test_the_number_of_a_part_that_emptied_is_not_given_again() -> None:
    parts = split(listed("1", "2"), 1)
    followed, _ = follow(parts, {0}, listed("1", "3"), 1)
    assert [part.number for part in followed] == [0, 2]


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (listed("2"), r"of the 2 pictures that were scored, 1 is gone \(1\)\. .*--again"),
        (
            [*listed("1"), ListedPicture("2", 10, 21)],
            r"of the 2 pictures that were scored, 1 is changed \(2\)",
        ),
        ([ListedPicture("2", 9, 20)], r"1 is gone \(1\) and 1 is changed \(2\)"),
    ],
)
def test_a_scored_picture_that_is_gone_or_changed_is_refused(
    now: list[ListedPicture], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        follow(split(listed("1", "2"), 5), {0}, now, 5)


def test_a_long_list_of_such_pictures_is_counted_and_shortened() -> None:
    names = [str(number) for number in range(9)]
    with pytest.raises(DataError, match=r"9 are gone \(0, 1, 2, …\)"):
        follow(split(listed(*names), 5), {0, 1}, [], 5)
