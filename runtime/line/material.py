"""What is to be known of a camera before it is opened for good."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.camera.open import is_live_address, open_source
from patchline.runtime.line.settings import CameraSettings


@dataclass(frozen=True)
class CameraMaterial:
    """A source as outputs and people need to know it.

    Attributes:
        is_live: whether frames come at their own pace.
        fps: frames per second as far as that is known.
        path: the local file or folder behind it, which no output may touch.
    """

    is_live: bool
    fps: float | None
    path: Path | None


def material_of(settings: CameraSettings) -> CameraMaterial:
    """Look at a source. A file or folder is opened and closed again, a live one is not touched.

    Raises:
        SourceOpenError: there is no such file or folder, or it cannot be read.
        ConfigurationError: the address is of an unknown kind.
    """
    if is_live_address(settings.source):
        return CameraMaterial(is_live=True, fps=settings.fps, path=None)
    source = open_source(settings.source, on_unreadable=lambda error: None)
    with contextlib.closing(source):
        return CameraMaterial(is_live=source.is_live, fps=source.fps, path=source.path)
