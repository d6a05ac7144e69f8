"""Files that are whole or not there: digests and all-or-nothing writing."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patchline.runtime.errors import WriteError

_READ_BYTES = 1 << 20
_STAGE = ".patchline-"
_named: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="")


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
        stage = Path(tempfile.mkdtemp(prefix=_STAGE + _named.get(), dir=directory))
    try:
        yield stage
        with write_errors(directory):
            _publish(stage, directory)
    except OSError as error:
        if error.errno not in _REASONS:  # about something else than the writing
            raise
        raise WriteError(f"{_refusal(directory, error)}. Nothing there was changed") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def named_stages(name: str) -> Iterator[None]:
    """Give staging folders a name while the context is open, so that who comes later knows them.

    Args:
        name: of what is made, such as a class; one process at a time makes it in a folder.
    """
    token = _named.set(_stage_of(name))
    try:
        yield
    finally:
        _named.reset(token)


def clear_stages(directory: Path, name: str) -> None:
    """Remove staging folders of that name which a killed process left.

    Args:
        directory: the target folder; it need not exist.
        name: as for :func:`named_stages`; nobody else may be making it.
    """
    mine = _STAGE + _stage_of(name)
    stages = list(directory.iterdir()) if directory.is_dir() else []
    for stage in stages:
        # What mkdtemp adds has no hyphen: else it is of a class with a longer name.
        if stage.name.startswith(mine) and "-" not in stage.name[len(mine) :]:
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
    """Turn every ``OSError`` into one sentence about ``target``.

    Raises:
        WriteError: in place of the ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(_refusal(target, error)) from error


def check_writable(directory: Path) -> None:
    """Make a folder and a file in it, before hours of work end in a refusal.

    Raises:
        WriteError: that is not possible.
    """
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()


def _stage_of(name: str) -> str:
    return f"stage-{name}-"


_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and try again",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "permission denied. Choose a folder you may write to",
    errno.EPERM: "permission denied. Choose a folder you may write to",
    errno.EROFS: "the file system is read-only. Choose another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way of the folder",
    errno.EISDIR: "a folder of that name is in the way of the file",
}


def _refusal(target: Path, error: OSError) -> str:
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return f"cannot write to {target}: {reason}"


def _publish(stage: Path, directory: Path) -> None:
    files = sorted(stage.iterdir())
    for file in files:
        if (directory / file.name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(directory / file.name))
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    kept = stage / "replaced"
    kept.mkdir()
    try:
        for file in files:
            _keep(directory / file.name, kept)
            file.replace(directory / file.name)
    except BaseException:  # an interrupt as well: all of the new files, or all of the old ones
        for file in files:
            _restore(directory / file.name, kept, was_moved=not file.exists())
        raise


def _keep(target: Path, kept: Path) -> None:
    if not target.exists():
        return
    try:
        os.link(target, kept / target.name)
    except OSError:  # a file system without hard links
        shutil.copy2(target, kept / target.name)


def _restore(target: Path, kept: Path, *, was_moved: bool) -> None:
    if (kept / target.name).exists():
        (kept / target.name).replace(target)
    elif was_moved:
        target.unlink(missing_ok=True)
