"""What an image store holds, oldest first: built once from the disk, kept up from then on."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_STEM = r"\d{6}_\d{3}_\d{6,}_-?\d+\.\d{3}(?:_good)?"
_FILE = re.compile(rf"({_STEM})(?:\.annotated)?\.(?:jpg|png|json)")
_PART = re.compile(rf"\.{_STEM}(?:\.annotated)?\.(?:jpg|png|json)\.part")
_TIME_LENGTH = len("HHMMSS_mmm")

SUFFIXES = (".jpg", ".png", ".annotated.jpg", ".annotated.png", ".json")
"""The files of one record; which of them are there depends on the store's settings."""


class StoreIndex:
    """The records of a store: their age and size, and the only code that deletes one.

    A record is what has one stem, ``CAMERA/YYYY-MM-DD/HHMMSS_mmm_FRAME_SCORE[_good]``. Files of any
    other name or depth, and links, are never counted and never deleted.

    Args:
        folder: of the store; walked once, here.

    Attributes:
        total_bytes: of all records.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}
        for stem, size in _found(folder):
            self._sizes[stem] = self._sizes.get(stem, 0) + size
        self.total_bytes = sum(self._sizes.values())
        self._oldest_first = [(_order(stem), stem) for stem in self._sizes]
        heapq.heapify(self._oldest_first)

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, stem: str) -> bool:
        return stem in self._sizes

    def add(self, stem: str, size_bytes: int) -> None:
        """A record was written, or one of that stem was written again."""
        if stem not in self._sizes:
            heapq.heappush(self._oldest_first, (_order(stem), stem))
        self.total_bytes += size_bytes - self._sizes.get(stem, 0)
        self._sizes[stem] = size_bytes

    def oldest(self) -> datetime | None:
        """When the oldest record was captured, in the time zone of the line, without it."""
        if not self._oldest_first:
            return None
        return datetime.strptime(self._oldest_first[0][0] + "000", "%Y-%m-%d/%H%M%S_%f")

    def delete_oldest(self) -> None:
        """Delete the files of the oldest record; those that somebody deleted are gone already.

        Raises:
            OSError: one of them cannot be deleted; the record is still counted.
        """
        _, stem = self._oldest_first[0]
        for suffix in SUFFIXES:
            (self._folder / f"{stem}{suffix}").unlink(missing_ok=True)
        heapq.heappop(self._oldest_first)
        self.total_bytes -= self._sizes.pop(stem)
        with contextlib.suppress(OSError):  # it is not empty, or gone
            (self._folder / stem).parent.rmdir()


def _order(stem: str) -> str:
    """The part of a stem that says when: records of several cameras are pruned as one."""
    _, day, name = stem.rsplit("/", 2)
    return f"{day}/{name[:_TIME_LENGTH]}"


def _found(folder: Path) -> Iterator[tuple[str, int]]:
    for camera in _folders(folder):
        for day in _folders(Path(camera.path)):
            if not _is_day(day.name):
                continue
            with os.scandir(day.path) as entries:
                yield from _files(f"{camera.name}/{day.name}", entries)


def _files(folder: str, entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, int]]:
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            continue
        if _PART.fullmatch(entry.name):  # a crash left it
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
        elif (match := _FILE.fullmatch(entry.name)) and _is_time(entry.name):
            with contextlib.suppress(FileNotFoundError):
                yield f"{folder}/{match[1]}", entry.stat(follow_symlinks=False).st_size


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


def _is_day(name: str) -> bool:
    return bool(_DAY.fullmatch(name)) and _is_of_form(name, "%Y-%m-%d")


def _is_time(name: str) -> bool:
    return _is_of_form(name[:6], "%H%M%S")


def _is_of_form(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True
