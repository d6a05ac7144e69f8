"""Open the source that an address names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from patchline.runtime.camera.capture import StreamSource, UsbSource, VideoSource
from patchline.runtime.camera.generated import PatternSource
from patchline.runtime.camera.pictures import OnUnreadable, PictureSource
from patchline.runtime.camera.redact import redact
from patchline.runtime.camera.source import FrameSource
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import ConfigurationError, SourceOpenError
from patchline.runtime.image_file import is_image

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
_EXPECTED = (
    "a picture, a folder of pictures, a video file, file://…, a camera number (0), "
    "rtsp://…, rtsps://…, http://…, https://… or test://"
)


def open_source(
    uri: str, *, on_unreadable: OnUnreadable | None = None, clock: Clock = SYSTEM_CLOCK
) -> FrameSource:
    """Open a source of frames.

    Args:
        uri: a picture, a folder (searched with its sub-folders), a video file, ``file://`` of
            these, a camera number, ``rtsp://``, ``rtsps://``, ``http://``, ``https://``, or
            ``test://`` (see :func:`~patchline.runtime.camera.generated.parse_pattern`).
        on_unreadable: skip pictures that cannot be read and tell this function of each.
        clock: for time stamps and the pace of ``test://``.

    Raises:
        SourceOpenError: it does not open; the message holds no credentials.
        ConfigurationError: an unknown kind of address, or wrong ``test://`` parameters.
    """
    if not uri.strip():
        raise ConfigurationError(f"the source is empty: expected {_EXPECTED}")
    if uri.isascii() and uri.isdigit():
        return UsbSource(int(uri), clock=clock)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return _open_path(Path(uri), on_unreadable, clock)
    kind = scheme[1].lower()
    if kind == "file":
        return _open_path(_path_of(uri), on_unreadable, clock)
    if kind == "test":
        return PatternSource(uri, clock=clock)
    if kind in STREAM_SCHEMES:
        return StreamSource(uri, clock=clock)
    raise ConfigurationError(f"{redact(uri)}: no source is called {kind}://. Expected {_EXPECTED}")


def _open_path(path: Path, on_unreadable: OnUnreadable | None, clock: Clock) -> FrameSource:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise SourceOpenError(f"{redact(str(path))} cannot be opened: {error}") from error
    if is_folder or (is_file and is_image(path)):
        return PictureSource(path, on_unreadable=on_unreadable, clock=clock)
    if is_file:
        return VideoSource(path, clock=clock)
    raise SourceOpenError(f"{redact(str(path))} does not exist. Expected {_EXPECTED}")


def _path_of(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ConfigurationError(
            f"{redact(uri)}: a file:// address has three slashes, as in file:///data/line.mp4"
        )
    # "#" and "?" are ordinary characters of a file name.
    return Path(unquote(uri[len("file://") + len(parts.netloc) :]))
