"""What every output is: something that is given each judged frame, and what is made of them."""

from __future__ import annotations

from typing import Protocol

from patchline.runtime.decisions.event import Notice
from patchline.runtime.verdict import JudgedFrame


class Output(Protocol):
    """Takes judged frames and notices in order, from one thread.

    The frame that an event tells of is written before the event is told.
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
