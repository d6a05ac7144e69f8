"""``--output``: annotated frames as a video file or as a folder of pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import cv2

from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.files import check_writable, write_errors
from patchline.runtime.outputs.base import Output
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.outputs.video import (
    LIVE_FPS,
    PICTURES_FPS,
    VIDEO_CODECS,
    AnnotatedVideo,
)
from patchline.runtime.verdict import JudgedFrame, Verdict

_JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)


class Material(Protocol):
    """What is to be known of a source; every ``FrameSource`` tells it."""

    @property
    def is_live(self) -> bool:
        """Whether frames come at their own pace."""

    @property
    def fps(self) -> float | None:
        """Frames per second as far as the source knows; asked at the first frame."""

    @property
    def path(self) -> Path | None:
        """The local file or folder behind it."""


def open_annotated_outputs(path: Path, cameras: Mapping[str, Material]) -> Output:
    """The annotated output of a line: for several cameras one each, under their names.

    ``annotated.mp4`` becomes ``annotated-left.mp4`` and ``annotated-right.mp4``, and the folder
    ``annotated`` gets the sub-folders ``left`` and ``right``.

    Args:
        path: as below.
        cameras: by name.

    Raises:
        ConfigurationError: as below.
        WriteError: as below.
    """
    if len(cameras) == 1:
        return open_annotated_output(path, next(iter(cameras.values())))
    return AnnotatedCameras(path, cameras)


def open_annotated_output(path: Path, source: Material) -> Output:
    """Open the annotated output that a path names, and make sure that it can be written.

    Args:
        path: ending in .mp4, .avi or .mkv for a video; otherwise a folder, made if need be.
        source: gives the frame rate, and must not be written over.

    Raises:
        ConfigurationError: another kind of file, or a path in or over the source.
        WriteError: nothing can be written there, or this OpenCV has no encoder for it.
    """
    check_apart(path, source, "--output")
    if path.suffix.lower() in VIDEO_CODECS and not path.is_dir():
        return AnnotatedVideo(path, lambda: _fps(source))
    if path.suffix and not path.is_dir():
        raise ConfigurationError(
            f"--output {path}: expected a video ending in {', '.join(VIDEO_CODECS)}, or a folder"
        )
    return AnnotatedPictures(path, source)


class AnnotatedPictures:
    """A folder of annotated pictures.

    Pictures keep the name, sub-folder and format of their source, so two never get the same name;
    frames of videos and cameras become ``frame_000000.jpg``.

    Raises:
        WriteError: the folder cannot be made or written.
    """

    is_reentrant = True  # each picture is a file of its own

    def __init__(self, folder: Path, source: Material) -> None:
        self.name = str(folder)
        self._folder = folder
        self._source_path = None if source.path is None else source.path.resolve()
        check_writable(folder)

    def write(self, judged: JudgedFrame) -> None:
        """Write one picture.

        Raises:
            WriteError: it cannot be written, or would replace a picture of the source.
        """
        target = self._target(judged)
        content = _encode(annotate(judged), target)
        with write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside and renamed: a full disk leaves no half picture, and a link is replaced
            # rather than what it points to.
            part = target.with_name(f".{target.name}.part")
            part.write_bytes(content)
            part.replace(target)

    def notify(self, notice: Notice) -> None:
        """Not used: it shows frames."""

    def close(self) -> None:
        """Every picture is complete already."""

    def _target(self, judged: JudgedFrame) -> Path:
        verdict = judged.verdict
        target = self._folder / (verdict.file or f"frame_{verdict.frame:06d}.jpg")
        if self._source_path is not None and _is_picture_of(self._source_path, verdict, target):
            raise WriteError(
                f"{target} is a picture of the source, and would be replaced by its annotated "
                "copy. Choose another --output"
            )
        return target


class AnnotatedCameras:
    """One annotated output per camera; what can be refused is refused before the line starts.

    Args:
        path: of the whole.
        cameras: by name.

    Raises:
        ConfigurationError: as :func:`open_annotated_output`, for any of the cameras.
        WriteError: likewise.
    """

    def __init__(self, path: Path, cameras: Mapping[str, Material]) -> None:
        self.name = str(path)
        self._path = path
        self._outputs: dict[str, Output] = {}
        for camera, own_source in cameras.items():
            for source in cameras.values():
                check_apart(path, source, "--output")
                check_apart(self._target(camera), source, "--output")
            self._outputs[camera] = open_annotated_output(self._target(camera), own_source)

    def write(self, judged: JudgedFrame) -> None:
        """Write a frame to the output of its camera.

        Raises:
            WriteError: it cannot be written.
        """
        self._outputs[judged.verdict.camera].write(judged)

    def notify(self, notice: Notice) -> None:
        """Not used: it shows frames."""

    def close(self) -> None:
        """Finish all of them.

        Raises:
            WriteError: of one of them.
        """
        with contextlib.ExitStack() as stack:
            for output in self._outputs.values():
                stack.callback(output.close)

    def _target(self, camera: str) -> Path:
        if self._path.suffix and not self._path.is_dir():
            return self._path.with_name(f"{self._path.stem}-{camera}{self._path.suffix}")
        return self._path / camera


def _is_picture_of(source: Path, verdict: Verdict, target: Path) -> bool:
    """Whether a target lies in the source, or is where a link of the source leads."""
    origin = source / verdict.file if verdict.file and source.is_dir() else source
    return target.resolve().is_relative_to(source) or _is_same_file(target, origin)


def _encode(picture: cv2.typing.MatLike, target: Path) -> bytes:
    suffix = target.suffix.lower()
    parameters = _JPEG_QUALITY if suffix in (".jpg", ".jpeg") else ()
    try:
        is_encoded, content = cv2.imencode(suffix, picture, parameters)
    except cv2.error as error:
        raise WriteError(f"cannot write {target}: OpenCV says {error.err}") from error
    if not is_encoded:
        raise WriteError(f"cannot write {target}: this OpenCV cannot write {suffix} files")
    return content.tobytes()


def _fps(source: Material) -> float:
    return source.fps or (LIVE_FPS if source.is_live else PICTURES_FPS)


def check_apart(path: Path, source: Material, option: str) -> None:
    """Make sure that nothing is written over what is read, or read again in the next run.

    Args:
        path: what is to be written.
        source: what is read.
        option: that named ``path``, for the message.

    Raises:
        ConfigurationError: one lies in the other, or they are the same.
    """
    if source.path is None:
        return
    target, origin = path.resolve(), source.path.resolve()
    # A folder above the source holds pictures of the user's, which could be replaced.
    is_inside, is_above = target.is_relative_to(origin), origin.is_relative_to(target)
    if is_inside or is_above or _is_same_file(target, origin):
        raise ConfigurationError(
            f"{option} {path} lies in the source {source.path} or above it: pictures there would "
            "be replaced, or judged in the next run. Choose a folder of its own"
        )


def _is_same_file(target: Path, origin: Path) -> bool:
    return target.exists() and target.samefile(origin)
