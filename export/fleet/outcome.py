"""What became of each class of a call (issue 9)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(str, enum.Enum):
    """What became of a class."""

    DONE = "done"
    UP_TO_DATE = "up to date"
    FAILED = "failed"
    NOT_MADE = "not made"


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes:
        class_name: its name.
        result: what became of it.
        seconds: that it took; ``None`` where nothing was done.
        node: IP address of the node that made it; ``None`` without Ray.
        images: good pictures behind the model.
        threshold: of the model.
        error: why it failed, a sentence.
    """

    class_name: str
    result: Result
    seconds: float | None = None
    node: str | None = None
    images: int | None = None
    threshold: float | None = None
    error: str | None = None


def failed(class_name: str, error: str | BaseException, node: str | None = None) -> Outcome:
    """A class that failed.

    Args:
        class_name: its name.
        error: why.
        node: that it failed on.
    """
    sentence = error if isinstance(error, str) else sentence_of(error)
    return Outcome(class_name, Result.FAILED, node=node, error=sentence)


def sentence_of(error: BaseException) -> str:
    """What an exception says, for a line of a table; of one that is not ours with its type."""
    from patchline.runtime.errors import PatchlineError

    if isinstance(error, PatchlineError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
