"""Messages on the disk until somebody else has them: they outlive lost networks and processes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.files import write_errors

MOST_MESSAGES, MOST_BYTES = 100_000, 1 << 30
"""What an outbox holds; past that the oldest messages are given up and counted."""

_SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",  # first: a second process must not send the same
    "PRAGMA auto_vacuum = FULL",  # what was sent is given back to the disk
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a power failure loses nothing that was accepted
    "PRAGMA journal_size_limit = 4194304",
)
_TABLE = """CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
)"""


@dataclass(frozen=True)
class Message:
    """One message that waits.

    Attributes:
        number: rises with each message; never used again.
        message_id: tells it from all others, also after a restart.
        topic: where it goes.
        payload: what is sent.
    """

    number: int
    message_id: str
    topic: str
    payload: bytes


class Outbox:
    """A bounded queue in an SQLite file; for any number of threads of one process.

    Args:
        path: of the file; ``-wal`` lies beside it while it is open.
        most_messages: at least 1.
        most_bytes: of all payloads together; a single larger one is still held.

    Attributes:
        dropped: messages that were given up for newer ones, since it was opened.
        set_aside: where a damaged file was moved, for a fresh one to begin; otherwise ``None``.

    Raises:
        ConfigurationError: another process has it open, or a limit is less than 1.
        WriteError: it cannot be made or written.
    """

    def __init__(
        self, path: Path, *, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES
    ) -> None:
        if most_messages < 1 or most_bytes < 1:
            raise ConfigurationError(
                f"the outbox {path} may hold {most_messages} messages and {most_bytes} bytes, "
                "expected at least 1"
            )
        self.dropped = 0
        self.set_aside: Path | None = None
        self._path = path
        self._most_messages, self._most_bytes = most_messages, most_bytes
        self._lock = threading.RLock()
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _write_errors(path):
            self._database = self._open()
            row = self._database.execute(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0) FROM messages"
            ).fetchone()
        self._count, self._bytes = int(row[0]), int(row[1])

    def __len__(self) -> int:
        return self._count

    def put(self, message_id: str, topic: str, payload: bytes) -> int:
        """Keep a message: it is on the disk when this returns, once however often it is put.

        Returns:
            How many older ones were given up for it.

        Raises:
            WriteError: it cannot be written; it is not kept then.
        """
        with self._lock, _write_errors(self._path), self._database as database:
            done = database.execute(
                "INSERT OR IGNORE INTO messages (message_id, topic, payload) VALUES (?, ?, ?)",
                (message_id, topic, payload),
            )
            if done.rowcount == 0:
                return 0
            count, total = self._count + 1, self._bytes + len(payload)
            too_many = self._too_many(count, total)
            database.executemany(
                "DELETE FROM messages WHERE number = ?", [(number,) for number, _ in too_many]
            )
        self._count = count - len(too_many)
        self._bytes = total - sum(size for _, size in too_many)
        self.dropped += len(too_many)
        return len(too_many)

    def next(self, after: int = 0) -> Message | None:
        """The oldest message with a number above ``after``.

        Raises:
            WriteError: the file cannot be read.
        """
        with self._lock, _write_errors(self._path):
            row = self._database.execute(
                "SELECT number, message_id, topic, payload FROM messages WHERE number > ? "
                "ORDER BY number LIMIT 1",
                (after,),
            ).fetchone()
        return None if row is None else Message(*row)

    def remove(self, number: int) -> None:
        """Forget a message that has arrived; one that is not held is forgotten already.

        Raises:
            WriteError: it cannot be written.
        """
        with self._lock, _write_errors(self._path), self._database as database:
            row = database.execute(
                "SELECT LENGTH(payload) FROM messages WHERE number = ?", (number,)
            ).fetchone()
            if row is None:
                return
            database.execute("DELETE FROM messages WHERE number = ?", (number,))
        self._count -= 1
        self._bytes -= int(row[0])

    def close(self) -> None:
        """Close the file, with all that still waits in it; a second call does nothing."""
        with self._lock:
            self._database.close()

    def _too_many(self, count: int, total: int) -> list[tuple[int, int]]:
        too_many: list[tuple[int, int]] = []
        if count <= self._most_messages and total <= self._most_bytes:
            return too_many
        rows = self._database.execute(
            "SELECT number, LENGTH(payload) FROM messages ORDER BY number"
        )
        for number, size in rows:
            is_enough = count <= self._most_messages and total <= self._most_bytes
            if is_enough or count == 1:
                break
            too_many.append((number, size))
            count, total = count - 1, total - size
        return too_many

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise ConfigurationError(
                f"the outbox {self._path} is in use by another process: give each its own"
            ) from error
        except sqlite3.DatabaseError:  # damaged: the line goes on, and the file can be looked at
            self.set_aside = self._path.with_name(f"{self._path.name}.damaged")
            self._path.replace(self.set_aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return _connect(self._path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=0.5, check_same_thread=False)
    try:
        for setting in _SETTINGS:
            database.execute(setting)
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
        with database:
            database.execute(_TABLE)
    except BaseException:
        database.close()
        raise
    return database


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise WriteError(f"cannot write to the outbox {path}: {error}") from error
    except OSError as error:
        raise WriteError(f"cannot write to the outbox {path}: {error.strerror}") from error
