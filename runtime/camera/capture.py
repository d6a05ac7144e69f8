"""Frames through OpenCV's ``VideoCapture``: what its kinds share, and video files."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import SourceError, SourceOpenError

OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 10_000
"""How long a camera may stay silent before it counts as lost."""

_GIF_END = b";"


class CaptureSource:
    """What all kinds share: an opened capture, read to its end.

    Attributes:
        name: what the user called it, without credentials.
        skipped_unreadable: pictures that came damaged and were passed over.
    """

    is_live = True
    path: Path | None = None

    def __init__(self, capture: cv2.VideoCapture, name: str, clock: Clock) -> None:
        self.name = name
        self.skipped_unreadable = 0
        self._capture = capture
        self._clock = clock
        self._count = 0

    @property
    def fps(self) -> float | None:
        """Frames per second as the container or camera says, if that makes sense."""
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        return fps if math.isfinite(fps) and 0 < fps <= 1000 else None

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        """Give every frame; see :meth:`FrameSource.frames`."""
        while not stop.is_set():
            frame = self._read()
            if frame is None:
                self._check_end()
                return
            self._count += 1
            image = self._decode(frame.image)
            if image is None:
                self.skipped_unreadable += 1
            else:
                yield frame if image is frame.image else replace(frame, image=image)

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()

    def _read(self) -> CapturedFrame | None:
        start = self._clock.monotonic()
        try:
            is_read, image = self._capture.read()
        except cv2.error as error:
            raise SourceError(f"{self.name} failed at frame {self._count}: {error.err}") from error
        if not is_read or image is None:
            return None
        read_ms = 1000.0 * (self._clock.monotonic() - start)
        return CapturedFrame(image, self._count, self._clock.now(), read_ms)

    def _decode(self, image: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """The picture in what was read; ``None`` where it is damaged."""
        return image

    def _check_end(self) -> None:
        """Raise if frames should have gone on."""
        raise NotImplementedError


class VideoSource(CaptureSource):
    """A video file; every frame of it.

    Raises:
        SourceOpenError: it is no video that this OpenCV can read.
    """

    is_live = False

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        # An absolute path: FFmpeg takes what stands before a colon for a protocol.
        capture = open_capture(str(path.resolve()), _file_backend())
        if capture is None:
            raise SourceOpenError(
                f"{path} does not open as a video: it is damaged, cut short, or of a format this "
                f"OpenCV ({cv2.__version__}) cannot read. Try to play it, or convert it to .mp4"
            )
        super().__init__(capture, str(path), clock)
        self.path = path

    def _check_end(self) -> None:
        expected = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # Containers store a duration or hide a frame by an edit list, so the count may be off.
        tolerance = 1
        if expected > 0 and self._count < expected - tolerance:
            raise SourceError(
                f"{self.name} gave {self._count} of its {expected:.0f} frames: it is damaged or "
                "cut short. The readable frames were judged"
            )
        if self._is_cut_gif():
            raise SourceError(
                f"{self.name} ends without a GIF's end mark after {self._count} frames: it is cut "
                "short. The readable frames were judged"
            )

    def _is_cut_gif(self) -> bool:
        # A GIF does not say how many frames it should have.
        if self.path is None or self.path.suffix.lower() != ".gif":
            return False
        with contextlib.suppress(OSError):
            return not self.path.read_bytes().rstrip(b"\0").endswith(_GIF_END)
        return False


def open_capture(
    address: str | int, backend: int, parameters: Sequence[int] = ()
) -> cv2.VideoCapture | None:
    """An opened capture, or ``None``: OpenCV tells no reason."""
    try:
        capture = cv2.VideoCapture(address, backend, list(parameters))
    except cv2.error:
        return None
    return capture if capture.isOpened() else None


def found_opencv() -> str:
    """Which OpenCV this is, for messages."""
    return f"OpenCV {cv2.__version__} in {Path(cv2.__file__).parent}"


def _file_backend() -> int:
    # JetPack's OpenCV may read files through GStreamer only.
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    return cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY
