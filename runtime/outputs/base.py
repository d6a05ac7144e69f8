"""What every output is: something that is given each judged frame, and what is made of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import WriteError
from patchline.runtime.verdict import JudgedFrame

logger = logging.getLogger(__name__)


class Output(Protocol):
    """Takes judged frames and notices in order, from one thread.

    The frame that an event tells of is written before the event is told.

    Two class attributes may be added, both ``False`` where they are missing:

    - ``ignores_frames``: ``write`` does nothing, so that frames need not wait in its queue;
    - ``is_reentrant``: a second thread may call it while a first is stuck in a call.
    """

    @property
    def name(self) -> str:
        """What it is, for messages: ``the JSON lines``, ``annotated.mp4``."""

    def write(self, judged: JudgedFrame) -> None:
        """Take one frame.

        Raises:
            WriteError: it cannot be written; the pipeline goes on without this output.
            OutputClosedError: nobody reads it any more; the pipeline ends.
        """

    def notify(self, notice: Notice) -> None:
        """Take an event or a change of a camera's state; many outputs have no use for it.

        Raises:
            WriteError: it cannot be written.
            OutputClosedError: nobody reads it any more.
        """

    def close(self) -> None:
        """Finish what was begun. A second call does nothing.

        Raises:
            WriteError: what was written is not complete.
        """


class OutputClosedError(Exception):
    """The reader of an output went away (``run-camera … | head -1``): no failure, an end."""


class OutputEndedError(WriteError):
    """An output that cannot go on after this failure (a video file): it is not tried again."""


Tell = Callable[[str, str], None]
"""Told of an output's failures and recoveries: its name, and a sentence without credentials."""


def surely(tell: Tell) -> Tell:
    """The same, that never raises: a broken stderr must not end the thread of an output."""

    def told(name: str, sentence: str) -> None:
        try:
            tell(name, sentence)
        except Exception:
            logger.exception("%s: %s (and telling that failed)", name, sentence)

    return told


def sentence_of(error: BaseException) -> str:
    """What is told of an exception, without a full stop; its type, if it is none of ours."""
    if isinstance(error, WriteError):
        return str(error).rstrip(".")
    return f"failed with {type(error).__name__}: {error}".rstrip(".")
