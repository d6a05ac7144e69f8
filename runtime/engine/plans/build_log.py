"""TensorRT's own log as ours: errors are kept for the sentence, the rest goes to the logger."""

from __future__ import annotations

import functools
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


def shared_log(trt: Any) -> Any:
    """TensorRT's one logger in this process; ``errors`` are the last messages of that kind.

    Who wants to know why a call was refused empties ``errors`` before it.

    A second logger beside the first one's builder or runtime makes TensorRT warn of it, through the
    logger and so through Python, while it holds its own lock. A garbage collection there that finds
    an older builder waits for that lock, and so for itself, for ever.
    """
    return _log_for(trt.ILogger)


@functools.cache
def _log_for(base: Any) -> Any:
    class Log(base):  # type: ignore[misc]
        """Receives TensorRT's messages, from any of its threads."""

        def __init__(self) -> None:
            base.__init__(self)  # pybind classes need their own __init__ called
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
