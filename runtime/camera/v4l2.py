"""USB cameras: opened by number or device, asked for a size, a rate and a codec."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2

from patchline.runtime.camera.capture import CaptureSource, open_capture
from patchline.runtime.camera.options import NO_OPTIONS, Codec, SourceOptions
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import SourceError, SourceOpenError

logger = logging.getLogger(__name__)

_MJPEG = float(cv2.VideoWriter.fourcc(*"MJPG"))
_RATE_TOLERANCE = 0.01  # 30000/1001 is what a camera calls 30


class UsbSource(CaptureSource):
    """A camera that the operating system knows by a number or a device file.

    What it gives other than asked for is a warning in the log; its frames come all the same.

    Args:
        device: ``0``, or a path such as ``/dev/video0``.
        options: width, height, fps; of the codecs MJPEG.
        clock: for the time stamps.

    Raises:
        SourceOpenError: there is no such camera, or another program uses it.
    """

    def __init__(
        self, device: str, *, options: SourceOptions = NO_OPTIONS, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        capture = open_capture(int(device) if device.isdigit() else device, _backend())
        if capture is None:
            raise SourceOpenError(
                f"camera {device} does not open: {_cameras_found()}. Check the cable, the number, "
                "your permission to use it, and that no other program holds it"
            )
        _ask(capture, options)
        for difference in _differences(capture, options):
            logger.warning("camera %s gives %s", device, difference)
        super().__init__(capture, device, clock)

    def _check_end(self) -> None:
        raise SourceError(
            f"camera {self.name} stopped giving frames after {self._count}: it was unplugged or "
            "its driver gave up. Check it and start again"
        )


def _backend() -> int:
    # A device file means nothing to the others, and GStreamer would come first where OpenCV has it.
    has_v4l2 = sys.platform == "linux" and cv2.videoio_registry.hasBackend(cv2.CAP_V4L2)
    return cv2.CAP_V4L2 if has_v4l2 else cv2.CAP_ANY


def _ask(capture: cv2.VideoCapture, options: SourceOptions) -> None:
    # The codec first: it decides which sizes there are, and the size which rates.
    if options.codec is Codec.MJPEG:
        capture.set(cv2.CAP_PROP_FOURCC, _MJPEG)
    if options.width is not None and options.height is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.height)
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)


def _differences(capture: cv2.VideoCapture, options: SourceOptions) -> Iterator[str]:
    """What the camera gives other than asked for, with both figures."""
    if options.width is not None and options.height is not None:
        width, height = (
            capture.get(name) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if (width, height) != (options.width, options.height):
            yield (
                f"{width:g} x {height:g} px, not the {options.width} x {options.height} px that "
                "were asked for; a crop has to fit what it gives"
            )
    if options.fps is not None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        # Not "> tolerance": a driver that does not know its rate says 0, -1 or NaN.
        if not abs(fps - options.fps) <= _RATE_TOLERANCE * options.fps:
            yield f"{fps:g} frames per second, not the {options.fps:g} that were asked for"
    if options.codec is Codec.MJPEG:
        found = capture.get(cv2.CAP_PROP_FOURCC)
        if found != _MJPEG:
            yield f"{fourcc_text(found)}, not the MJPEG that was asked for"


def fourcc_text(code: float) -> str:
    """A codec's four characters, as OpenCV's properties give them in a number."""
    characters = (int(code) & 0xFFFFFFFF).to_bytes(4, "little")
    text = characters.decode("ascii", "replace").strip("\0 ")
    return text if text.isprintable() and text.isascii() and text else "an unknown codec"


def _cameras_found() -> str:
    found = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    return f"this machine has {', '.join(found)}" if found else "this machine shows no camera"
