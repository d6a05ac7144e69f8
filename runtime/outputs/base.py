"""What every output is: something that is given each judged frame."""

from __future__ import annotations

from typing import Protocol

from patchline.runtime.verdict import JudgedFrame


class Output(Protocol):
    """Takes judged frames in order, from one thread."""

    @property
    def name(self) -> str:
        """What it is, for messages: ``the JSON lines``, ``annotated.mp4``."""

    def write(self, judged: JudgedFrame) -> None:
        """Take one frame.

        Raises:
            WriteError: it cannot be written; the pipeline goes on without this output.
            OutputClosedError: nobody reads it any more; the pipeline ends.
        """

    def close(self) -> None:
        """Finish what was begun. A second call does nothing.

        Raises:
            WriteError: what was written is not complete.
        """


class OutputClosedError(Exception):
    """The reader of an output went away (``run-camera … | head -1``): no failure, an end."""
