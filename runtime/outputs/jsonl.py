"""One JSON line per frame: the verdict for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from patchline.runtime.decisions.event import Notice
from patchline.runtime.files import write_errors
from patchline.runtime.outputs.base import OutputClosedError
from patchline.runtime.verdict import JudgedFrame, StageTimes, Verdict


class JsonLines:
    """Writes each verdict as one line and flushes it.

    Args:
        file: an open text file; it stays open.
        name: what it is, for messages.
    """

    def __init__(self, file: TextIO, name: str = "the JSON lines (stdout)") -> None:
        self.name = name
        self._file = file

    def write(self, judged: JudgedFrame) -> None:
        """Write one line.

        Raises:
            OutputClosedError: the reading end was closed.
            WriteError: the disk is full, or the like.
        """
        line = json.dumps(verdict_document(judged.verdict), allow_nan=False)
        with write_errors(Path(self.name)):
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except BrokenPipeError as error:
                raise OutputClosedError(self.name) from error

    def notify(self, notice: Notice) -> None:
        """Not used: it shows frames."""

    def close(self) -> None:
        """Nothing is left to be done: every line was flushed."""


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON types: what a line holds; ``file`` is there for pictures only."""
    file = {} if verdict.file is None else {"file": verdict.file}
    return {
        "time": verdict.time.isoformat(timespec="milliseconds"),
        "class": verdict.class_name,
        "source": verdict.source,
        "frame": verdict.frame,
        **file,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "anomalous": verdict.anomalous,
        "ms": _milliseconds(verdict.times),
    }


def _milliseconds(times: StageTimes) -> dict[str, float]:
    stages = {
        "read": times.read_ms,
        "wait": times.wait_ms,
        "preprocess": times.preprocess_ms,
        "infer": times.infer_ms,
        "output": times.output_ms,
        "total": times.total_ms,
    }
    return {name: round(value, 3) for name, value in stages.items()}
