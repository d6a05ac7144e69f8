"""What an address names, and which options it takes, found without opening anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from patchline.runtime.camera.address import Kind, parse_address
from patchline.runtime.camera.open import is_live_address, open_source
from patchline.runtime.camera.options import Codec, SourceOptions
from patchline.runtime.errors import ConfigurationError

LIVE = [
    ("0", Kind.USB, "0"),
    ("/dev/video0", Kind.USB, "/dev/video0"),
    ("v4l2:///dev/video0", Kind.USB, "/dev/video0"),
    ("csi://0", Kind.CSI, "0"),
    ("CSI://12", Kind.CSI, "12"),
    ("rtsp://u:p@cam/1", Kind.RTSP, "rtsp://u:p@cam/1"),
    ("rtsps://cam/1", Kind.RTSP, "rtsps://cam/1"),
    ("http://cam/stream.mjpg", Kind.HTTP, "http://cam/stream.mjpg"),
    ("https://cam/stream.mjpg", Kind.HTTP, "https://cam/stream.mjpg"),
    ("gst://videotestsrc ! identity", Kind.GST, "videotestsrc ! identity"),
    ("gst://filesrc location=%20a", Kind.GST, "filesrc location=%20a"),
    ("test://", Kind.TEST, "test://"),
    ("test://?fps=5", Kind.TEST, "test://?fps=5"),
]
NOT_LIVE = [
    ("gone.mp4", Kind.PATH, "gone.mp4"),
    ("parts/*.png", Kind.PATH, "parts/*.png"),
    ("parts/", Kind.PATH, "parts/"),
    ("file:///data/a%20b.mp4", Kind.PATH, "/data/a b.mp4"),
    ("file://localhost/data/#1?", Kind.PATH, "/data/#1?"),
    ("/dev/videos/line.mp4", Kind.PATH, "/dev/videos/line.mp4"),
    ("12:30.avi", Kind.PATH, "12:30.avi"),
    ("test://?fps=0", Kind.TEST, "test://?fps=0"),
]


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(cv2, "VideoCapture", refuse)


@pytest.mark.parametrize(("uri", "kind", "value"), LIVE + NOT_LIVE)
def test_an_address_is_of_its_kind(uri: str, kind: Kind, value: str) -> None:
    address = parse_address(uri)
    assert (address.kind, address.value) == (kind, value)
    assert ":p@" not in address.name


@pytest.mark.parametrize(
    ("uri", "is_live"), [(row[0], True) for row in LIVE] + [(row[0], False) for row in NOT_LIVE]
)
def test_cameras_are_live_and_files_are_not(uri: str, is_live: bool) -> None:
    assert is_live_address(uri) is is_live


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "the source is empty"),
        ("gopher://x", "no source is called gopher://"),
        ("csi://", "as in csi://0"),
        ("csi:/0", "as in csi://0"),
        ("csi://front", "as in csi://0"),
        ("csi://0 ! filesink", "as in csi://0"),
        ("gst://", "expected gst:// and a pipeline"),
        ("gst:// ", "expected gst:// and a pipeline"),
        ("gst:/videotestsrc", "expected gst:// and a pipeline"),
        ("test://?fps=x", "fps is 'x'"),
    ],
)
def test_an_address_out_of_form_is_refused_everywhere(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        is_live_address(uri)
    with pytest.raises(ConfigurationError, match=message):
        open_source(uri)


SIZE = SourceOptions(width=640, height=480)
RATE = SourceOptions(fps=10)
CODEC = SourceOptions(codec=Codec.H264)
LATENCY = SourceOptions(latency_ms=100)


@pytest.mark.parametrize(
    ("uri", "options", "names"),
    [
        *((uri, SIZE, "width, height") for uri in ("a.png", "rtsp://u:p@c", "http://c", "gst://x")),
        *((uri, RATE, "fps") for uri in ("a.png", "rtsp://u:p@c", "http://c", "gst://x")),
        *((uri, CODEC, "codec") for uri in ("a.png", "csi://0", "http://c", "test://", "gst://x")),
        *((uri, LATENCY, "latency_ms") for uri in ("a.png", "0", "csi://0", "http://c", "test://")),
    ],
)
def test_an_option_of_no_use_is_refused_and_named(
    uri: str, options: SourceOptions, names: str
) -> None:
    with pytest.raises(ConfigurationError, match=f": {names} cannot be set for ") as caught:
        open_source(uri, options=options)
    assert ":p@" not in str(caught.value)


def test_a_refusal_says_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"as in test://\?width=640"):
        open_source("test://", options=SIZE)
