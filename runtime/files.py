"""Files that are whole or not there: digests and all-or-nothing writing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patchline.runtime.errors import WriteError

_READ_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def staged_files(directory: Path) -> Iterator[Path]:
    """Give an empty folder beside the target; move what was written there into it at the end.

    Everything that can fail (a full disk, an interrupt, a failed check) happens in the staging
    folder, so that a reader of ``directory`` finds the old files or the new ones and never a part.

    Args:
        directory: the target folder, made if it does not exist.

    Yields:
        The staging folder. Each file in it replaces its namesake in ``directory``.

    Raises:
        WriteError: the folder cannot be made or written; the old files are untouched.
    """
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".patchline-", dir=directory))
    try:
        with write_errors(directory):
            yield stage
            _publish(stage, directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all.

    Raises:
        WriteError: it cannot be written; an older file at ``path`` is untouched.
    """
    with staged_files(path.parent) as stage:
        (stage / path.name).write_bytes(content)


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one sentence about ``target``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise WriteError(f"cannot write to {target}: {_REASONS[error.errno]}") from error


_REASONS = {
    errno.ENOSPC: "the disk is full; nothing there was changed. Free some space and try again",
    errno.EDQUOT: "the disk quota is used up; nothing there was changed",
    errno.EFBIG: "the file would be larger than this system allows; nothing there was changed",
    errno.EACCES: "permission denied. Choose a folder you may write to",
    errno.EPERM: "permission denied. Choose a folder you may write to",
    errno.EROFS: "the file system is read-only. Choose another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way of the folder",
    errno.EISDIR: "a folder of that name is in the way of the file",
}


def _publish(stage: Path, directory: Path) -> None:
    files = sorted(stage.iterdir())
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    for file in files:
        file.replace(directory / file.name)
