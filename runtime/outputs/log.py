"""``--log``: JSON lines in a file that becomes ``.1``, ``.2``, … before it grows too large."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import check_writable, write_errors
from patchline.runtime.outputs.documents import KINDS, to_json
from patchline.runtime.outputs.json_output import JsonOutput

_BLOCK_BYTES = 1 << 16


class RotatedLog:
    """A file of lines and its older ones, ``files`` in all, none larger than ``most_bytes``.

    A line is never split over two files (one that is longer than ``most_bytes`` gets its own), and
    none is ever half: what a crash or a full disk left of a last line is cut off before the next.

    Args:
        path: of the newest file; the older ones are ``path.1``, ``path.2``, …
        most_bytes: at least 1.
        files: at least 2.

    Raises:
        ConfigurationError: a limit out of range, a folder, or a file of something else.
        WriteError: nothing can be written there.
    """

    def __init__(self, path: Path, most_bytes: int = 100 << 20, files: int = 10) -> None:
        if most_bytes < 1 or files < 2:
            raise ConfigurationError(
                f"the log has {files} files of {most_bytes} bytes, expected at least 2 files of 1"
            )
        if path.is_dir():
            raise ConfigurationError(f"--log {path} is a folder, expected the name of a file")
        self._path = path
        self._most_bytes = most_bytes
        self._files = files
        self._descriptor: int | None = None
        self._size = 0
        check_writable(path.parent)
        with write_errors(path):
            _check_ours(path)
            self._open()

    def write_line(self, line: str, *, is_synced: bool = False) -> None:
        """Append one line.

        Args:
            line: without line ends.
            is_synced: whether it must be on the disk before this returns.

        Raises:
            WriteError: it cannot be written; the file holds nothing of it.
        """
        content = line.encode() + b"\n"
        with write_errors(self._path):
            self._open_if_moved()
            if self._size and self._size + len(content) > self._most_bytes:
                self._shift()
            self._append(content)
            if is_synced:
                os.fsync(self._opened())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        return self._descriptor

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags, 0o644)
        self._size = _mend(self._descriptor)

    def _open_if_moved(self) -> None:
        """Another program may have taken the file away (``logrotate``)."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        opened = os.fstat(self._opened())
        if found is None or (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino):
            self.close()
            self._open()
        else:
            self._size = found.st_size  # somebody may have emptied it

    def _shift(self) -> None:
        self.close()
        for number in range(self._files - 2, -1, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")

    def _append(self, content: bytes) -> None:
        descriptor = self._opened()
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(content)


class LogFile(JsonOutput):
    """Writes JSON lines into a rotated file; events are on the disk before it goes on.

    Args:
        log: where to; it is closed with this.
        name: what it is, for messages.
        kinds: which lines: some of ``frame``, ``event``, ``state``.

    Raises:
        ConfigurationError: another kind.
    """

    def __init__(self, log: RotatedLog, name: str, kinds: tuple[str, ...] = KINDS) -> None:
        super().__init__(name, kinds)
        self._log = log

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    def _put(self, document: dict[str, Any]) -> None:
        self._log.write_line(to_json(document), is_synced=document["type"] == "event")


def _check_ours(path: Path) -> None:
    # A typing mistake must not append to a model, or cut off what is no JSON in it.
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.read(1)
    if first not in (b"", b"{", b"\0"):  # zeros: what a power failure leaves of a file
        raise ConfigurationError(
            f"--log {path} is a file of something else: expected JSON lines, or no file yet"
        )


def _mend(descriptor: int) -> int:
    """End the last line, or cut it off if it is no whole JSON document; the size after that."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    start = _start_of_last_line(descriptor, size)
    if start == size:
        return size
    os.lseek(descriptor, start, os.SEEK_SET)
    if _is_json(_read(descriptor, size - start)):
        os.write(descriptor, b"\n")
        return size + 1
    os.ftruncate(descriptor, start)
    return start


def _start_of_last_line(descriptor: int, size: int) -> int:
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        os.lseek(descriptor, begin, os.SEEK_SET)
        found = _read(descriptor, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _read(descriptor: int, count: int) -> bytes:
    parts = []
    while count > 0 and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _is_json(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except ValueError:
        return False
    return isinstance(document, dict)
