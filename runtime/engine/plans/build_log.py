"""TensorRT's own log as ours: errors are kept for the sentence, the rest goes to the logger."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.INFO,  # of interest to TensorRT's developers, hundreds of them in a build
    "INFO": logging.DEBUG,
    "VERBOSE": None,
}
_KEPT = 8


def make_log(trt: Any) -> Any:
    """A logger object for TensorRT whose ``errors`` hold the last messages of that kind."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Receives TensorRT's messages, from any of its threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind classes need their own __init__ called
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Sort one message."""
            level = _LEVELS.get(severity.name)
            if level is None:
                return
            if level == logging.ERROR:
                self.errors = [*self.errors, message.strip()][-_KEPT:]
            logger.log(min(level, logging.INFO), message.strip())

    return Log()
