"""Network cameras through FFmpeg: RTSP, MJPEG over HTTP."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy.typing as npt

from patchline.runtime.camera.capture import (
    OPEN_TIMEOUT_MS,
    READ_TIMEOUT_MS,
    CaptureSource,
    found_opencv,
    open_capture,
)
from patchline.runtime.camera.gstreamer import HOW_TO_GET
from patchline.runtime.camera.options import NO_OPTIONS, Codec, SourceOptions
from patchline.runtime.camera.redact import redact
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.v4l2 import fourcc_text
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import (
    ConfigurationError,
    ImageReadError,
    SourceError,
    SourceOpenError,
)
from patchline.runtime.image_file import decode_image

logger = logging.getLogger(__name__)

_NAMES = {  # what FFmpeg and containers call them
    Codec.H264: ("h264", "avc1"),
    Codec.H265: ("hevc", "h265", "hev1", "hvc1"),
    Codec.MJPEG: ("mjpg", "mjpe", "jpeg"),
}
_RAW = -1  # a value of CAP_PROP_FORMAT: read() gives what came, not yet decoded


class StreamSource(CaptureSource):
    """A network camera: ``rtsp://``, ``rtsps://``, ``http://`` or ``https://``.

    Pictures of an MJPEG stream that come damaged are passed over and counted; FFmpeg would fill
    what is missing with grey.

    Args:
        uri: its address, with user name and password where it wants them.
        options: the codec that is expected; another one is a warning in the log.
        open_timeout_ms: how long it may take to open.
        read_timeout_ms: how long it may give nothing.
        clock: for the time stamps.

    Attributes:
        description: the address without credentials, and what it is read through.

    Raises:
        ConfigurationError: a latency is asked for.
        SourceOpenError: nothing answers in time, or what answers is no video.
    """

    def __init__(
        self,
        uri: str,
        *,
        options: SourceOptions = NO_OPTIONS,
        open_timeout_ms: int = OPEN_TIMEOUT_MS,
        read_timeout_ms: int = READ_TIMEOUT_MS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        _refuse_latency(uri, options)
        self.description = f"{redact(uri)} through FFmpeg"
        self._read_timeout_ms = read_timeout_ms
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_timeout_ms]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_timeout_ms]
        capture = open_capture(uri, cv2.CAP_FFMPEG, timeouts)
        if capture is None:
            raise SourceOpenError(_why_closed(uri, open_timeout_ms))
        super().__init__(capture, redact(uri), clock)
        self._last_good_s: float | None = None
        self._is_raw = self._ask_for_raw(options.codec)

    def _ask_for_raw(self, expected: Codec) -> bool:
        codec = fourcc_text(self._capture.get(cv2.CAP_PROP_FOURCC))
        if expected is not Codec.AUTO and codec.lower() not in _NAMES[expected]:
            logger.warning(
                "%s gives %s, not the %s that was asked for", self.name, codec, expected.value
            )
        if codec.lower() not in _NAMES[Codec.MJPEG]:
            return False
        is_raw = bool(self._capture.set(cv2.CAP_PROP_FORMAT, _RAW))
        if not is_raw:
            logger.warning(
                "%s: %s gives no undecoded pictures, so that a damaged one cannot be told from a "
                "whole one and is judged",
                self.name,
                found_opencv(),
            )
        return is_raw

    def _read(self) -> CapturedFrame | None:
        frame = super()._read()
        # After a time-out OpenCV hands out what its decoder still held, one picture per further
        # time-out, as if it were new: the stream is lost, and these are seconds old.
        if frame is not None and frame.read_ms >= self._read_timeout_ms:
            return None
        return frame

    def _decode(self, image: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        if not self._is_raw:
            return image
        now_s = self._clock.monotonic()
        try:
            picture = decode_image(image.tobytes(), self.name)
        except ImageReadError as error:
            if self._last_good_s is None:
                self._last_good_s = now_s  # since the first picture came, not since the opening
            silent_s = now_s - self._last_good_s
            if 1000.0 * silent_s < self._read_timeout_ms:
                return None
            raise SourceError(
                f"{self.name} gave nothing but damaged pictures for {silent_s:.0f} s (the latest: "
                f"{error}). Check the camera and its network"
            ) from error
        self._last_good_s = now_s
        return picture

    def _check_end(self) -> None:
        raise SourceError(
            f"{self.name} ended after {self._count} frames: the camera closed the stream, or gave "
            f"nothing for {self._read_timeout_ms / 1000:g} s. Check it and start again"
        )


def _refuse_latency(uri: str, options: SourceOptions) -> None:
    if options.latency_ms is not None:
        # OPENCV_FFMPEG_CAPTURE_OPTIONS holds for all captures of a process, and its max_delay does
        # nothing over TCP.
        raise ConfigurationError(
            f"{redact(uri)}: latency_ms cannot be set, for without GStreamer the stream comes over "
            f"TCP through FFmpeg, which holds nothing back against jitter. Leave it out, or "
            f"{HOW_TO_GET}"
        )


def _why_closed(uri: str, timeout_ms: int) -> str:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return (
            f"{redact(uri)} does not open: it needs FFmpeg, and {found_opencv()} was built without "
            "it. Use the opencv-python-headless of pip, or a gst:// pipeline"
        )
    return (
        f"{redact(uri)} does not open: no video came within {timeout_ms / 1000:g} s. "
        "Check the address, the user name and password, and that the camera is on"
    )
