"""Network cameras through FFmpeg: damaged pictures, another codec, what cannot be set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import pytest

from patchline.runtime.camera.gstreamer import has_gstreamer
from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.options import Codec, SourceOptions
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.stream import StreamSource
from patchline.runtime.errors import (
    ConfigurationError,
    ImageReadError,
    SourceError,
    SourceOpenError,
)
from patchline.runtime.image_file import decode_image

from .fakes import gray
from .mjpeg_server import CameraServer, Mode, is_whole, jpeg, number_of
from .rtsp_server import RtspServer, needs_rtsp_server

LATENCY = SourceOptions(latency_ms=100)


@pytest.fixture
def camera() -> Iterator[CameraServer]:
    with CameraServer(fps=200) as running:
        yield running


@pytest.fixture
def source(camera: CameraServer) -> Iterator[StreamSource]:
    opened = StreamSource(camera.uri, read_timeout_ms=2000)
    yield opened
    opened.close()


def take(frames: Iterator[CapturedFrame], count: int) -> list[CapturedFrame]:
    return list(islice(frames, count))


@pytest.mark.parametrize("mode", [Mode.GARBAGE, Mode.HALF])
def test_damaged_pictures_are_passed_over_and_counted(
    camera: CameraServer, source: StreamSource, mode: Mode
) -> None:
    frames = source.frames(threading.Event())
    first = take(frames, 3)
    camera.mode = mode
    taken = 3 + len(take(frames, camera.sent - 3))  # those already on their way
    assert taken >= 3
    threading.Timer(0.2, lambda: setattr(camera, "mode", Mode.FRAMES)).start()
    later = take(frames, 5)
    assert all(is_whole(frame.image) for frame in first + later)
    assert source.skipped_unreadable > 0
    assert later[-1].index >= taken + source.skipped_unreadable  # the gap shows what is missing
    assert number_of(first[0].image) == 0


@pytest.mark.parametrize("mode", [Mode.NOISE, Mode.HALF_THEN_CLOSE, Mode.CLOSE, Mode.STALL])
def test_a_stream_that_breaks_ends_with_a_sentence_and_no_wrong_picture(
    camera: CameraServer, source: StreamSource, mode: Mode
) -> None:
    frames = source.frames(threading.Event())
    given = take(frames, 3)
    camera.mode = mode
    with pytest.raises(SourceError, match=r"line\.mjpg ended after \d+ frames"):
        given.extend(frames)
    assert all(is_whole(frame.image) for frame in given)


@pytest.mark.parametrize("mode", [Mode.GARBAGE, Mode.HALF])
def test_nothing_but_damaged_pictures_is_a_lost_stream(camera: CameraServer, mode: Mode) -> None:
    source = StreamSource(camera.uri, read_timeout_ms=200)
    frames = source.frames(threading.Event())
    take(frames, 1)
    camera.mode = mode
    with pytest.raises(SourceError, match=r"nothing but damaged pictures for 0 s.*cannot read"):
        list(frames)
    source.close()


def test_a_stop_ends_a_stream_of_damaged_pictures(
    camera: CameraServer, source: StreamSource
) -> None:
    stop = threading.Event()
    frames = source.frames(stop)
    take(frames, 1)
    camera.mode = Mode.GARBAGE
    threading.Timer(0.1, stop.set).start()
    assert all(is_whole(frame.image) for frame in frames)


def test_a_camera_that_wants_a_password_gets_it_and_no_one_else(camera: CameraServer) -> None:
    camera.user_password = "admin:secret"
    with pytest.raises(SourceOpenError):
        open_source(camera.uri)
    source = open_source(camera.uri.replace("//", "//admin:secret@"))
    assert is_whole(next(source.frames(threading.Event())).image)
    assert "secret" not in source.name
    source.close()


def test_parts_that_are_shorter_than_announced_give_no_wrong_picture(
    camera: CameraServer, source: StreamSource
) -> None:
    given = []
    try:
        for frame in source.frames(threading.Event()):
            given.append(frame)
            camera.mode = Mode.SHORT if len(given) % 5 == 0 else Mode.FRAMES
            if source.skipped_unreadable:
                camera.mode = Mode.FRAMES
            if len(given) == 100:
                break
    except SourceError as error:  # FFmpeg may lose its place for good, which is a lost stream
        assert "ended after" in str(error)
    assert len(given) >= 5
    assert all(is_whole(frame.image) for frame in given)


def test_a_picture_with_the_start_of_another_in_its_pixels_is_damaged() -> None:
    long, short = (jpeg(number, 640, 480) for number in (1, 2))
    spliced = long[: len(long) // 2] + b"\r\n--frame\r\n\r\n" + short
    assert cv2.imdecode(np.frombuffer(long, np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(ImageReadError, match="the picture is truncated"):
        decode_image(spliced, "a stream")


needs_ffmpeg_for_rtsp = pytest.mark.skipif(has_gstreamer(), reason="this OpenCV has GStreamer")


@needs_rtsp_server
@needs_ffmpeg_for_rtsp
@pytest.mark.parametrize("codec", [Codec.H264, Codec.MJPEG])
def test_a_stream_of_another_codec_is_a_warning(
    codec: Codec, caplog: pytest.LogCaptureFixture
) -> None:
    other = Codec.MJPEG if codec is Codec.H264 else Codec.H264
    with RtspServer(codec.value) as camera:
        for asked in (codec, other):
            source = open_source(camera.uri, options=SourceOptions(codec=asked))
            assert next(source.frames(threading.Event())).image.shape == (120, 160, 3)
            source.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].endswith(f"not the {other.value} that was asked for")


@needs_rtsp_server
@needs_ffmpeg_for_rtsp
def test_a_server_that_is_killed_ends_the_stream_and_serves_again() -> None:
    with RtspServer() as camera:
        source = StreamSource(camera.uri, read_timeout_ms=2000)
        frames = source.frames(threading.Event())
        take(frames, 5)
        camera.kill()
        with pytest.raises(SourceError, match="ended after"):
            list(frames)
        source.close()
        with pytest.raises(SourceOpenError, match="does not open"):
            StreamSource(camera.uri, open_timeout_ms=500)
        camera.start()
        again = StreamSource(camera.uri)
        assert len(take(again.frames(threading.Event()), 5)) == 5
        again.close()


def test_a_latency_cannot_be_set_without_gstreamer_and_that_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"latency_ms cannot be set.*apt-get") as caught:
        StreamSource("rtsp://u:secret@cam/1", options=LATENCY)
    assert "secret" not in str(caught.value)


def test_an_opencv_without_ffmpeg_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: _Capture(is_open=False))
    with pytest.raises(SourceOpenError, match="it needs FFmpeg, and OpenCV") as caught:
        open_source("http://u:secret@cam/1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("codec", ["MJPG", "mjpe"])  # as OpenCV 5.0 and 4.6 name it
def test_an_opencv_that_gives_no_undecoded_pictures_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, codec: str
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: _Capture(codec=codec))
    source = open_source("http://cam/1")
    assert "a damaged one cannot be told from a whole one" in caplog.text
    assert next(source.frames(threading.Event())).image.shape == (48, 64, 3)


class _Capture:
    """An MJPEG stream that an OpenCV decodes whatever one asks for."""

    def __init__(self, *, is_open: bool = True, codec: str = "MJPG") -> None:
        self._is_open, self._codec = is_open, codec

    def isOpened(self) -> bool:
        return self._is_open

    def get(self, name: int) -> float:
        return float(cv2.VideoWriter.fourcc(*self._codec))

    def set(self, name: int, value: float) -> bool:
        return False

    def read(self) -> tuple[bool, np.ndarray]:
        return True, gray(1)
