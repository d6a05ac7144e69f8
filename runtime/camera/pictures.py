"""Frames from picture files: one file, a folder with all below it, or what a pattern names."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.wildcards import has_wildcards, matching_files
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import ImageReadError, SourceError, SourceOpenError
from patchline.runtime.image_file import IMAGE_SUFFIXES, is_image, read_image

OnUnreadable = Callable[[ImageReadError], None]
"""Told of each picture that is left out; called in the thread that reads."""

_DIGITS = re.compile(r"(\d+)")


class PictureSource:
    """Pictures in natural order (``2.png`` before ``10.png``).

    Args:
        path: a picture file, a folder that is searched with all its sub-folders, or a pattern
            such as ``parts/**/*.png``; what exists is taken as it is.
        on_unreadable: skip pictures that cannot be read and tell this function of each; without
            it the first of them ends the source.
        clock: for the time stamps.

    Raises:
        SourceOpenError: there is no picture, or a folder cannot be listed.
    """

    is_live = False
    fps = None

    def __init__(
        self,
        path: Path,
        *,
        on_unreadable: OnUnreadable | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = str(path)
        self.skipped_unreadable = 0
        self._on_unreadable = on_unreadable
        self._clock = clock
        self.path, self._files = path, [path]
        self._root = path.parent
        if path.is_dir():
            self._root, self._files = path, list_pictures(path)
        elif not path.is_file() and has_wildcards(str(path)):
            self.path, self._files = list_matching_pictures(str(path))
            self._root = self.path

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        """Give every picture; see :meth:`FrameSource.frames`."""
        for index, file in enumerate(self._files):
            if stop.is_set():
                return
            frame = self._read(index, file)
            if frame is not None:
                yield frame
        if self.skipped_unreadable == len(self._files):
            raise SourceError(f"none of the {len(self._files)} pictures in {self.name} can be read")

    def close(self) -> None:
        """Nothing is held open."""

    def _read(self, index: int, file: Path) -> CapturedFrame | None:
        start = self._clock.monotonic()
        try:
            image = read_image(file)
        except ImageReadError as error:
            if self._on_unreadable is None:
                raise ImageReadError(
                    f"{error}. Remove it, or leave such pictures out with --skip-unreadable"
                ) from error
            self.skipped_unreadable += 1
            self._on_unreadable(error)
            return None
        read_ms = 1000.0 * (self._clock.monotonic() - start)
        name = file.relative_to(self._root).as_posix()
        return CapturedFrame(image, index, self._clock.now(), read_ms, name)


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below ``folder`` in natural order.

    Raises:
        SourceOpenError: there is none, or the folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise SourceOpenError(f"cannot list {error.filename}: {error.strerror}") from error

    # Not rglob: it passes over folders that may not be read, without a word.
    names = (
        Path(root) / name for root, _, files in os.walk(folder, onerror=refuse) for name in files
    )
    files = [path for path in names if is_image(path)]
    if not files:
        raise SourceOpenError(
            f"{folder} holds no picture: expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} in it or its sub-folders"
        )
    return sorted(files, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def list_matching_pictures(pattern: str) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and the picture files of a pattern in natural order.

    Raises:
        SourceOpenError: it names no picture, or a folder cannot be listed.
    """
    root, found = matching_files(pattern)
    files = [path for path in found if is_image(path)]
    if not files:
        raise SourceOpenError(
            f"{pattern} names {len(found)} files and no picture among them: expected files ending "
            f"in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return root, sorted(files, key=lambda path: natural_key(path.relative_to(root).as_posix()))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that counts: ``2.png`` < ``10.png``; equal only for equal names."""
    parts = (part for part in _DIGITS.split(name.casefold()) if part)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name
