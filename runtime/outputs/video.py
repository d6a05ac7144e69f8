"""Annotated frames as a video file. OpenCV's writer fails without a word, so all is checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import WriteError
from patchline.runtime.files import write_errors
from patchline.runtime.outputs.base import OutputEndedError
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.preprocess import Frame
from patchline.runtime.verdict import JudgedFrame

VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
"""Codec by file name: those that OpenCV's own builds can encode."""

PICTURES_FPS = 2.0
"""A folder of pictures has no pace of its own: slow enough to look at each."""

LIVE_FPS = 25.0
"""For cameras that do not say how fast they are."""

_SPACE_CHECK_FRAMES = 50
_SPARE_BYTES = 1 << 20  # the writer still has to close the file


class AnnotatedVideo:
    """A video of annotated frames, in the size of the first one.

    Args:
        path: ending in one of :data:`VIDEO_CODECS`; an older file there is replaced.
        fps: frames per second; a function is asked at the first frame, when the source is open.

    Raises:
        WriteError: nothing can be written there, or this OpenCV has no encoder for it.
    """

    def __init__(self, path: Path, fps: float | Callable[[], float]) -> None:
        self.name = str(path)
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_encoder(path)

    def write(self, judged: JudgedFrame) -> None:
        """Add one frame; it is scaled into the first frame's size, with black bars.

        Raises:
            OutputEndedError: the file cannot be opened, or the disk is full: a video cannot be
                taken up again.
        """
        picture = annotate(judged)
        if self._writer is None:
            self._size = picture.shape[:2]
            self._writer = self._open()
        self._writer.write(fit(picture, self._size))
        self._count += 1
        if self._count % _SPACE_CHECK_FRAMES == 0:
            _check_space(self._path)

    def _open(self) -> cv2.VideoWriter:
        fps = self._fps() if callable(self._fps) else self._fps
        try:
            return _open_writer(self._path, fps, self._size, self._path)
        except WriteError as error:
            raise OutputEndedError(str(error)) from error

    def notify(self, notice: Notice) -> None:
        """Not used: it shows frames."""

    def close(self) -> None:
        """Finish the file and read its frame count back.

        Raises:
            WriteError: it does not hold the frames that were written.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        found = _count_frames(self._path)
        if found < self._count:
            raise WriteError(
                f"{self._path} holds {found} of {self._count} frames: the disk is probably full. "
                "Free some space and try again"
            )


def fit(picture: Frame, size: tuple[int, int]) -> Frame:
    """Scale a picture into ``size`` (height, width), keeping its shape, on black."""
    if picture.shape[:2] == size:
        return picture
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(1, int(side * scale)) for side in picture.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA
    )
    return canvas


def _check_encoder(path: Path) -> None:
    # Before the run rather than at its first frame: in the same folder, with the same codec.
    if path.exists() and not os.access(path, os.W_OK):
        raise WriteError(f"cannot write to {path}: permission denied. Choose another name")
    with tempfile.TemporaryDirectory(prefix=".patchline-", dir=path.parent) as folder:
        trial = Path(folder) / f"trial{path.suffix}"
        writer = _open_writer(trial, PICTURES_FPS, (64, 64), path)
        writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
        if _count_frames(trial) != 1:
            raise WriteError(
                f"cannot write {path}: a trial video of one frame did not come out whole. The disk "
                f"may be full, or this OpenCV cannot encode {path.suffix}; a folder always works"
            )


def _check_space(path: Path) -> None:
    with write_errors(path):
        free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < _SPARE_BYTES:
        raise OutputEndedError(f"cannot write to {path}: the disk is full. The video ends here")


def _open_writer(path: Path, fps: float, size: tuple[int, int], asked: Path) -> cv2.VideoWriter:
    suffix = path.suffix.lower()
    codec = VIDEO_CODECS[suffix]
    try:
        writer = cv2.VideoWriter(
            str(path.resolve()), cv2.VideoWriter.fourcc(*codec), fps, (size[1], size[0])
        )
    except cv2.error as error:
        raise WriteError(f"cannot write {asked}: OpenCV says {error.err}") from error
    if not writer.isOpened():
        raise WriteError(
            f"cannot write {asked}: this OpenCV ({cv2.__version__}) did not open its {codec} "
            f"encoder for {size[1]} x {size[0]} px. Try another of {', '.join(VIDEO_CODECS)}, "
            "or a folder"
        )
    return writer


def _count_frames(path: Path) -> int:
    if not path.is_file() or path.stat().st_size == 0:
        return 0
    capture = cv2.VideoCapture(str(path.resolve()))
    count = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT))) if capture.isOpened() else 0
    capture.release()
    return count
