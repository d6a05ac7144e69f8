"""One call at a time writes into a folder of models, since versions are counted there (issue 9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import write_errors

PATIENCE_S = 600.0
"""So long a call waits for another one that writes; a class is written in seconds."""

_POLL_S = 0.1


@contextmanager
def only_writer(repository: Path) -> Iterator[None]:
    """Keep other calls from writing into a repository while the context is open.

    The lock is the system's (``flock``), beside the repository, in which Triton would look at it.
    It ends with the process that holds it, however it ends. Whoever finds it held waits.

    Args:
        repository: the folder of all models; its own folder is made if it does not exist.

    Raises:
        ConfigurationError: it was held all the while, :data:`PATIENCE_S`.
        WriteError: the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    place = repository.resolve()
    with write_errors(repository):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.parent / f".patchline-serve-{place.name}.lock")
        try:
            lock.acquire(timeout=PATIENCE_S, poll_interval=_POLL_S)
        except Timeout as error:  # an OSError, too
            raise ConfigurationError(
                f"another export-model has been writing to {repository} for {PATIENCE_S:g} s. End "
                "it, or give another --serve-dir; then serve with --only-serve"
            ) from error
    try:
        yield
    finally:
        # While it is held: whoever waits for it sees that the file is gone, and makes another.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
