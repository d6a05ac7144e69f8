"""JSON lines for other programs: verdicts, events and states, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from patchline.runtime.files import write_errors
from patchline.runtime.outputs.base import OutputClosedError
from patchline.runtime.outputs.documents import (
    event_document,
    state_document,
    to_json,
    verdict_document,
)
from patchline.runtime.outputs.json_output import JsonOutput

__all__ = ["JsonLines", "event_document", "state_document", "verdict_document"]


class JsonLines(JsonOutput):
    """Writes each verdict, event and state that is asked for as one line and flushes it.

    Args:
        file: an open text file; it stays open.
        name: what it is, for messages.
        kinds: which lines: some of ``frame``, ``event``, ``state``.

    Raises:
        ConfigurationError: another kind.
    """

    def __init__(
        self,
        file: TextIO,
        name: str = "the JSON lines (stdout)",
        kinds: tuple[str, ...] = ("frame",),
    ) -> None:
        super().__init__(name, kinds)
        self._file = file

    def close(self) -> None:
        """Nothing is left to be done: every line was flushed."""

    def _put(self, document: dict[str, Any]) -> None:
        line = to_json(document)
        with write_errors(Path(self.name)):
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except BrokenPipeError as error:
                raise OutputClosedError(self.name) from error
