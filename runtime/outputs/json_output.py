"""What the outputs of JSON lines share: which lines they write."""

from __future__ import annotations

from typing import Any

from patchline.runtime.decisions.event import Notice
from patchline.runtime.outputs.documents import check_kinds, notice_document, verdict_document
from patchline.runtime.verdict import JudgedFrame


class JsonOutput:
    """An output that makes a line of each verdict, event and state that is asked for.

    Args:
        name: what it is, for messages.
        kinds: which lines: some of ``frame``, ``event``, ``state``.

    Raises:
        ConfigurationError: another kind.
    """

    def __init__(self, name: str, kinds: tuple[str, ...]) -> None:
        self.name = name
        self._kinds = check_kinds(kinds)
        self.ignores_frames = "frame" not in self._kinds

    def write(self, judged: JudgedFrame) -> None:
        """Write one line.

        Raises:
            OutputClosedError: the reading end was closed.
            WriteError: the disk is full, or the like.
        """
        if "frame" in self._kinds:
            self._put(verdict_document(judged.verdict))

    def notify(self, notice: Notice) -> None:
        """Write one line; raises as above."""
        document = notice_document(notice)
        if document["type"] in self._kinds:
            self._put(document)

    def _put(self, document: dict[str, Any]) -> None:
        raise NotImplementedError
