"""An archive in parts: each picture in one of them, and those that are done never touched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

from patchline.runtime.archive.listing import ListedPicture
from patchline.runtime.errors import DataError

_NAMED = 3  # so many pictures are named in a message


@dataclass(frozen=True)
class Part:
    """Pictures that are scored and written together.

    Attributes:
        number: from 0; never given twice in one target.
        pictures: at least one, in the order of the listing.
    """

    number: int
    pictures: tuple[ListedPicture, ...]


@dataclass(frozen=True)
class Changes:
    """What became of an archive since it was listed last.

    Attributes:
        new: pictures that were not listed then.
        gone: pictures that were, and were not scored yet.
        changed: pictures of another size or time now, and not scored yet.
    """

    new: int = 0
    gone: int = 0
    changed: int = 0


def split(pictures: Sequence[ListedPicture], size: int, first: int = 0) -> list[Part]:
    """Cut a listing into parts of ``size`` pictures, the last one smaller.

    Args:
        pictures: in the order they keep.
        size: at least 1.
        first: number of the first part.
    """
    starts = range(0, len(pictures), size)
    return [
        Part(number, tuple(pictures[start : start + size]))
        for number, start in enumerate(starts, first)
    ]


def follow(
    parts: Sequence[Part], done: Collection[int], pictures: Sequence[ListedPicture], size: int
) -> tuple[list[Part], Changes]:
    """Bring the parts of an earlier listing up to date with what the archive holds now.

    A part that is done stays as it is. One that is not loses the pictures that are gone. New
    pictures go into new parts behind all others.

    Args:
        parts: of the earlier listing.
        done: the numbers of those that were scored.
        pictures: the archive now.
        size: pictures of a new part.

    Returns:
        The parts by number, and what has changed.

    Raises:
        DataError: a picture that was scored is gone or has changed.
    """
    now = {picture.path: picture for picture in pictures}
    _check_scored([part for part in parts if part.number in done], now)
    kept = [part if part.number in done else _updated(part, now) for part in parts]
    known = {picture.path for picture in _pictures(parts)}
    new = [picture for picture in pictures if picture.path not in known]
    first = max((part.number for part in parts), default=-1) + 1
    changes = Changes(
        len(new),
        sum(picture.path not in now for picture in _pictures(parts)),
        sum(now.get(picture.path, picture) != picture for picture in _pictures(parts)),
    )
    return [part for part in kept if part.pictures] + split(new, size, first), changes


def _updated(part: Part, now: dict[str, ListedPicture]) -> Part:
    found = (now.get(picture.path) for picture in part.pictures)
    return Part(part.number, tuple(picture for picture in found if picture is not None))


def _check_scored(done: Sequence[Part], now: dict[str, ListedPicture]) -> None:
    gone = [picture.path for picture in _pictures(done) if picture.path not in now]
    changed = [
        picture.path for picture in _pictures(done) if now.get(picture.path, picture) != picture
    ]
    if not gone and not changed:
        return
    found = " and ".join(
        f"{len(paths)} {'are' if len(paths) > 1 else 'is'} {what} ({_names(paths)})"
        for paths, what in ((gone, "gone"), (changed, "changed"))
        if paths
    )
    raise DataError(
        f"of the {sum(len(part.pictures) for part in done)} pictures that were scored, {found}. "
        "Bring them back as they were, give another --out, or score all of it again with --again"
    )


def _names(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")


def _pictures(parts: Sequence[Part]) -> list[ListedPicture]:
    return list(chain.from_iterable(part.pictures for part in parts))
