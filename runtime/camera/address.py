"""What kind of source an address names, found without opening it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from patchline.runtime.camera.options import SourceOptions
from patchline.runtime.camera.redact import redact
from patchline.runtime.errors import ConfigurationError

EXPECTED = (
    "a picture, a folder of pictures, a pattern (parts/*.png), a video file, file://…, "
    "a camera number (0) or device (/dev/video0, v4l2:///dev/video0), csi://0, rtsp://…, "
    "rtsps://…, http://…, https://…, gst://PIPELINE or test://"
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_V4L2_DEVICE = re.compile(r"/dev/(video\d+|v4l/.+)")
_SENSOR = re.compile(r"[0-9]{1,3}")


class Kind(enum.Enum):
    """The kinds of sources."""

    PATH = "files"
    USB = "a USB camera"
    CSI = "a CSI camera"
    RTSP = "an RTSP stream"
    HTTP = "an HTTP stream"
    GST = "a pipeline"
    TEST = "test://"


@dataclass(frozen=True)
class Address:
    """An address in its parts.

    Attributes:
        kind: of the source.
        uri: as it was given; may hold a password.
        value: what the kind needs of it: a path or pattern, a camera number or device, a sensor
            number, a pipeline, or the whole address.
    """

    kind: Kind
    uri: str
    value: str

    @property
    def name(self) -> str:
        """Safe to print."""
        return redact(self.uri)


def parse_address(uri: str) -> Address:
    """Read an address.

    Raises:
        ConfigurationError: it is empty, of an unknown kind, or not in the form of its kind; the
            message holds no credentials.
    """
    if not uri.strip():
        raise ConfigurationError(f"the source is empty: expected {EXPECTED}")
    is_number = uri.isascii() and uri.isdigit()
    if is_number or _V4L2_DEVICE.fullmatch(uri):
        return Address(Kind.USB, uri, str(int(uri)) if is_number else uri)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return Address(Kind.PATH, uri, uri)
    name = scheme[1].lower()
    if name not in _SCHEMES:
        raise ConfigurationError(
            f"{redact(uri)}: no source is called {name}://. Expected {EXPECTED}"
        )
    return Address(_SCHEMES[name], uri, _value(_SCHEMES[name], name, uri))


def refuse_useless(address: Address, options: SourceOptions) -> None:
    """See that a kind of source has a use for each option that is given.

    Raises:
        ConfigurationError: it has none for at least one; names them and says what to do instead.
    """
    allowed, instead = _OPTIONS[address.kind]
    useless = [name for name in options.given if name not in allowed]
    if useless:
        raise ConfigurationError(
            f"{address.name}: {', '.join(useless)} cannot be set for {address.kind.value}: "
            f"{instead}"
        )


_SCHEMES = {
    "file": Kind.PATH,
    "v4l2": Kind.USB,
    "csi": Kind.CSI,
    "rtsp": Kind.RTSP,
    "rtsps": Kind.RTSP,
    "http": Kind.HTTP,
    "https": Kind.HTTP,
    "gst": Kind.GST,
    "test": Kind.TEST,
}

_OPTIONS: dict[Kind, tuple[tuple[str, ...], str]] = {
    Kind.PATH: ((), "frames come as they were recorded. Leave it out"),
    Kind.USB: (("width", "height", "fps", "codec"), "its frames are not held back. Leave it out"),
    Kind.CSI: (
        ("width", "height", "fps"),
        "its pictures are neither encoded nor held back. Leave it out",
    ),
    Kind.RTSP: (
        ("codec", "latency_ms"),
        "the camera decides it. Set it in the camera's own settings",
    ),
    Kind.HTTP: ((), "the camera decides it. Set it in the camera's own settings"),
    Kind.GST: ((), "the pipeline says it all. Write it into the pipeline"),
    Kind.TEST: ((), "the address says it, as in test://?width=640&height=480&fps=30"),
}


def _value(kind: Kind, scheme: str, uri: str) -> str:
    if kind is Kind.PATH:
        return _path_of(uri)
    if kind in (Kind.RTSP, Kind.HTTP, Kind.TEST):
        return uri
    start, rest = f"{scheme}://", uri[len(scheme) + 3 :]
    has_slashes = uri.lower().startswith(start)
    if kind is Kind.CSI and not (has_slashes and _SENSOR.fullmatch(rest)):
        raise ConfigurationError(
            f"{redact(uri)}: expected csi:// and a sensor number, as in csi://0"
        )
    if kind is Kind.USB and not (has_slashes and rest.startswith("/dev/")):
        raise ConfigurationError(
            f"{redact(uri)}: expected three slashes and a device, as in v4l2:///dev/video0"
        )
    if kind is Kind.GST and not (has_slashes and rest.strip()):
        raise ConfigurationError(
            f"{redact(uri)}: expected gst:// and a pipeline, as in gst://videotestsrc ! identity"
        )
    return rest


def _path_of(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ConfigurationError(
            f"{redact(uri)}: a file:// address has three slashes, as in file:///data/line.mp4"
        )
    # "#" and "?" are ordinary characters of a file name.
    return unquote(uri[len("file://") + len(parts.netloc) :])
