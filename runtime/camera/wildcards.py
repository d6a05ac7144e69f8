"""Files that a pattern names: ``parts/*.png``, ``parts/**/good_?.png``."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchline.runtime.errors import SourceOpenError

_WILDCARD = re.compile(r"[*?[]")


def has_wildcards(text: str) -> bool:
    """Whether a path may be a pattern: it holds ``*``, ``?`` or ``[``."""
    return _WILDCARD.search(text) is not None


def matching_files(pattern: str) -> tuple[Path, list[Path]]:
    """All files that a pattern names, in no particular order.

    ``*`` and ``?`` stand for characters of one name, ``[ab]`` for one of these characters, ``**``
    for any number of folders. Names that begin with a dot need a dot in the pattern.

    Returns:
        The folder in front of the first wildcard, and the files, below it.

    Raises:
        SourceOpenError: a folder cannot be listed.
    """
    parts = Path(pattern).parts
    fixed = next((at for at, part in enumerate(parts) if has_wildcards(part)), len(parts))
    root = Path(*parts[:fixed])
    # "**" twice finds a file on two ways.
    return root, list(dict.fromkeys(_files_below(root, parts[fixed:])))


def _files_below(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _files_below(folder, rest or ("*",))
        for entry in _list(folder):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _files_below(folder / entry.name, parts)
        return
    for entry in _list(folder):
        if not _is_named(entry.name, head):
            continue
        if not rest and entry.is_file():
            yield folder / entry.name
        elif rest and entry.is_dir():
            yield from _files_below(folder / entry.name, rest)


def _is_named(name: str, pattern: str) -> bool:
    is_hidden = name.startswith(".") and not pattern.startswith(".")
    return not is_hidden and fnmatch.fnmatchcase(name, pattern)


def _list(folder: Path) -> list[os.DirEntry[str]]:
    # Not the glob module: it passes over folders that may not be read, without a word.
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise SourceOpenError(f"cannot list {folder}: {error.strerror}") from error
