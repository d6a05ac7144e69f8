"""The target of ``score-archive``: a folder of parts that is made, or gone on with (issue 9)."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.archive.attempts import forget_attempts
from patchline.runtime.archive.listing import Archive
from patchline.runtime.archive.part_file import part_name
from patchline.runtime.archive.parts import Changes, Part, follow, split
from patchline.runtime.archive.record import RECORD, load_parts, load_record, save_record
from patchline.runtime.archive.settings import Settings, differences
from patchline.runtime.engine.plans.build_lock import build_lock
from patchline.runtime.errors import ConfigurationError, DataError, WriteError
from patchline.runtime.files import write_errors

_PART = re.compile(r"part-(\d{5,})\.parquet")
_STAGES = ".patchline-*"


@dataclass(frozen=True)
class Work:
    """What a target holds once it was begun.

    Attributes:
        parts: all of them, by number.
        done: numbers of those that are there.
        changes: of the archive since the call before; nothing at the first one.
    """

    parts: tuple[Part, ...]
    done: frozenset[int]
    changes: Changes

    @property
    def missing(self) -> list[Part]:
        """The parts that are to be scored."""
        return [part for part in self.parts if part.number not in self.done]


class Target:
    """A target folder, held by one process at a time.

    Args:
        folder: made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other calls out, and clear away what a killed one left, before and after.

        Raises:
            ConfigurationError: the folder is a file, or holds something else.
            WriteError: another call writes here, or nobody can.
        """
        _check_folder(self.folder)
        with build_lock(self.folder / "target", self._refuse_second):
            self._clear_stages()
            try:
                yield
            finally:
                self._clear_stages()

    def begin(self, archive: Archive, images: str, settings: Settings, *, again: bool) -> Work:
        """Lay the parts down, or take up those that are there.

        Args:
            archive: as it is now.
            images: as it was given.
            settings: of this call.
            again: forget what was scored.

        Raises:
            ConfigurationError: the parts were scored with other settings.
            DataError: scored pictures are gone or have changed, or the record is damaged.
            WriteError: the folder cannot be written.
        """
        if again:
            self._forget()
        record, changes = load_record(self.folder), Changes()
        if record is None:
            parts, done = split(archive.pictures, settings.partition_size), frozenset[int]()
        else:
            self._check_settings(record.settings, settings)
            before, done = load_parts(self.folder, record), self._done()
            self._check_known(done - {part.number for part in before})
            parts, changes = follow(before, done, archive.pictures, settings.partition_size)
        save_record(self.folder, parts, images, settings)
        return Work(tuple(parts), done & {part.number for part in parts}, changes)

    def _check_settings(self, before: Settings, now: Settings) -> None:
        found = differences(before, now)
        if found:
            raise ConfigurationError(
                f"{self.folder} was scored with other settings: {'; '.join(found)}. Give them as "
                "they were, give another --out, or score all of it again with --again"
            )

    def _check_known(self, others: frozenset[int]) -> None:
        if others:
            raise DataError(
                f"{self.folder / part_name(min(others))} is no part of this target, and whoever "
                "reads the folder would read it too. Remove it"
            )

    def _done(self) -> frozenset[int]:
        return frozenset(
            int(found[1])
            for path in self.folder.iterdir()
            if (found := _PART.fullmatch(path.name)) and path.is_file()
        )

    def _forget(self) -> None:
        with write_errors(self.folder):
            for number in self._done():
                (self.folder / part_name(number)).unlink(missing_ok=True)
            (self.folder / RECORD).unlink(missing_ok=True)

    def _clear_stages(self) -> None:
        for stage in self.folder.glob(_STAGES):
            shutil.rmtree(stage, ignore_errors=True)
        forget_attempts(self.folder)

    def _refuse_second(self) -> None:
        raise WriteError(
            f"another score-archive is writing to {self.folder}. Wait for its end, or give another "
            "--out"
        )


def check_apart(out: Path, images: Path) -> None:
    """Refuse a target inside the folder that is scored, and the other way round.

    Raises:
        ConfigurationError: one lies inside the other.
    """
    if not images.is_dir():
        return
    target, source = out.resolve(), images.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        names = ["--out", "--images"]
        inner, outer = names if target.is_relative_to(source) else reversed(names)
        raise ConfigurationError(
            f"{inner} lies inside {outer} ({out} and {images}). Give --out a folder of its own, "
            "outside the archive"
        )


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is a file, and --out is a folder of Parquet files. Give another name"
        )
    if not folder.is_dir() or (folder / RECORD).is_file():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name[0] not in "._")
    if others:
        raise ConfigurationError(
            f"{folder} holds {others[0]} and no {RECORD}: it is no target of score-archive. Give a "
            "new or an empty folder"
        )
