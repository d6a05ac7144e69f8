"""Frames from a GStreamer pipeline that ends in an ``appsink``."""

from __future__ import annotations

import logging

import cv2

from patchline.runtime.camera.capture import (
    OPEN_TIMEOUT_MS,
    READ_TIMEOUT_MS,
    CaptureSource,
    found_opencv,
    open_capture,
)
from patchline.runtime.camera.gstreamer import HOW_TO_GET, has_gstreamer
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import ConfigurationError, SourceError, SourceOpenError

logger = logging.getLogger(__name__)

_TIMEOUTS_SINCE = (4, 7)


class GstreamerSource(CaptureSource):
    """A pipeline; the newest frame, unless the pipeline's own ``appsink`` says otherwise.

    Args:
        pipeline: as ``gst-launch-1.0`` takes it, with an ``appsink``; may hold a password.
        name: what the user called it, without credentials.
        check: what to look at if it does not open, as a sentence.
        open_timeout_ms: how long it may take to open (OpenCV 4.7 or newer).
        read_timeout_ms: how long it may give nothing (likewise).
        clock: for the time stamps.

    Attributes:
        description: the name, and that it is read through GStreamer.

    Raises:
        ConfigurationError: this OpenCV has no GStreamer.
        SourceOpenError: the pipeline does not start.
    """

    def __init__(
        self,
        pipeline: str,
        name: str,
        *,
        check: str,
        open_timeout_ms: int = OPEN_TIMEOUT_MS,
        read_timeout_ms: int = READ_TIMEOUT_MS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not has_gstreamer():
            raise ConfigurationError(  # no camera to wait for: it stays so until it is installed
                f"{name} needs GStreamer, and {found_opencv()} was built without it: {HOW_TO_GET}"
            )
        self.description = f"{name} through GStreamer"
        self._read_timeout_ms = read_timeout_ms
        timeouts = _timeouts(open_timeout_ms, read_timeout_ms)
        capture = open_capture(pipeline, cv2.CAP_GSTREAMER, timeouts)
        if capture is None:
            raise SourceOpenError(f"{name} does not open through GStreamer. {check}")
        super().__init__(capture, name, clock)

    def _check_end(self) -> None:
        raise SourceError(
            f"{self.name} ended after {self._count} frames: its pipeline came to an end or failed, "
            f"or gave nothing for {self._read_timeout_ms / 1000:g} s. Check it and start again"
        )


def _timeouts(open_ms: int, read_ms: int) -> list[int]:
    # An older OpenCV refuses to open with parameters that it does not know.
    major, minor = (int(part) for part in cv2.__version__.split(".")[:2])
    if (major, minor) < _TIMEOUTS_SINCE:
        logger.warning(
            "%s cannot give a silent pipeline up by itself: OpenCV 4.7 and newer can",
            found_opencv(),
        )
        return []
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms]
