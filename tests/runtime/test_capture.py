"""Frames from video files, USB cameras and network streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from patchline.runtime.camera import v4l2 as v4l2_module
from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.stream import StreamSource
from patchline.runtime.camera.supervised import CameraReader
from patchline.runtime.camera.v4l2 import UsbSource
from patchline.runtime.errors import ConfigurationError, SourceError, SourceOpenError

from .fakes import gray
from .mjpeg_server import CameraServer, Mode, is_whole, number_of

MakeVideo = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[CameraServer]:
    with CameraServer(fps=500) as running:
        yield running


def read_until_error(uri: str) -> tuple[list[CapturedFrame], SourceError | None]:
    frames: list[CapturedFrame] = []
    try:
        for frame in open_source(uri).frames(threading.Event()):
            frames.append(frame)  # noqa: PERF402 - the frames before the error count
    except SourceError as error:
        return frames, error
    return frames, None


def brightness(frame: CapturedFrame) -> int:
    return round(float(np.mean(frame.image)) / 4)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v"), ("a.webm", "VP80")]
)
def test_a_video_gives_every_frame(make_video: MakeVideo, name: str, codec: str) -> None:
    source = open_source(str(make_video(name, codec=codec)))
    assert (source.is_live, source.fps) == (False, pytest.approx(25.0))
    frames = list(source.frames(threading.Event()))
    assert [frame.index for frame in frames] == list(range(30))
    assert [brightness(frame) for frame in frames] == pytest.approx(list(range(30)), abs=1)
    assert all(frame.file is None for frame in frames)


def test_a_name_with_a_colon_is_no_protocol(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video()
    path.rename(path.with_name("12:30.avi"))
    monkeypatch.chdir(path.parent)
    assert read_until_error("12:30.avi")[1] is None


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mkv", "mp4v")])
def test_a_cut_video_gives_what_is_left_and_then_says_so(
    make_video: MakeVideo, name: str, codec: str
) -> None:
    path = make_video(name, codec=codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames, error = read_until_error(str(path))
    assert 0 < len(frames) < 30
    assert f"{name} gave {len(frames)} of its 30 frames" in str(error)


def test_a_video_that_breaks_mid_frame_says_so(make_video: MakeVideo) -> None:
    path = make_video()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    frames, error = read_until_error(str(path))
    assert 0 < len(frames) < 30
    assert "damaged or cut short. The readable frames were judged" in str(error)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_does_not_open(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceOpenError, match=r"line\.mp4 does not open as a video"):
        open_source(str(path))


@pytest.mark.shared_data
def test_real_videos_are_whole(shared: Path) -> None:
    counts = {
        path.name: len(read_until_error(str(path))[0])
        for path in (shared / "video").iterdir()
        if path.suffix in (".gif", ".mp4")
    }
    assert counts["bottle-detection.mp4"] == 1189
    assert counts["bolt-multi-size-detection.gif"] == 37


@pytest.mark.shared_data
def test_a_cut_gif_says_so(shared: Path, tmp_path: Path) -> None:
    content = (shared / "video/bolt-multi-size-detection.gif").read_bytes()
    path = tmp_path / "cut.gif"
    path.write_bytes(content[: len(content) // 2])
    frames, error = read_until_error(str(path))
    assert frames
    assert "cut.gif ends without a GIF's end mark" in str(error)


@pytest.mark.shared_data
def test_a_cut_mp4_does_not_open_or_says_how_far_it_goes(shared: Path, tmp_path: Path) -> None:
    """Its index lies at one end: with it the readable frames come, without it none can."""
    content = (shared / "video/bottle-detection.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: len(content) // 2])
    has_index_first = content.find(b"moov") < content.find(b"mdat")
    if not has_index_first:
        with pytest.raises(SourceOpenError, match="damaged, cut short"):
            open_source(str(path))
        return
    frames, error = read_until_error(str(path))
    assert 0 < len(frames) < 1189
    assert "cut.mp4 gave" in str(error)


def test_a_missing_usb_camera_is_a_sentence() -> None:
    with pytest.raises(SourceOpenError, match=r"camera 97 does not open: this machine"):
        open_source("97")


def test_a_usb_camera_that_stops_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2_module, "open_capture", lambda *arguments: _ThreeFrames())
    source = UsbSource("0")
    assert (source.is_live, source.name, source.fps) == (True, "0", None)
    frames = source.frames(threading.Event())
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceError, match="camera 0 stopped giving frames after 3"):
        next(frames)


class _ThreeFrames:
    def __init__(self) -> None:
        self._left = 3

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return (True, gray(1)) if self._left >= 0 else (False, None)

    def get(self, name: int) -> float:
        return float("nan") if name == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None: ...


@pytest.mark.parametrize("uri", ["gopher://x/y", "csi2://0", "rtsp+x://u:secret@cam/1"])
def test_an_unknown_scheme_lists_the_known_ones(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Expected .*rtsp://.*test://") as caught:
        open_source(uri)
    assert "secret" not in str(caught.value)


def test_an_empty_source_and_a_file_address_with_a_host_are_errors() -> None:
    with pytest.raises(ConfigurationError, match="the source is empty"):
        open_source(" ")
    with pytest.raises(ConfigurationError, match="three slashes"):
        open_source("file://data/line.mp4")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_nobody_serves_does_not_open(scheme: str, unused_port: int) -> None:
    with pytest.raises(SourceOpenError, match=r"\*\*\*@127\.0\.0\.1:\d+/x does not open") as caught:
        open_source(f"{scheme}://admin:secret@127.0.0.1:{unused_port}/x")
    assert "secret" not in str(caught.value)


@pytest.fixture
def unused_port() -> int:
    with CameraServer() as server:
        return server.port


def test_a_server_that_never_answers_runs_into_the_time_out(server: CameraServer) -> None:
    server.mode = Mode.SILENT
    with pytest.raises(SourceOpenError, match=r"no video came within 0\.2 s"):
        StreamSource(server.uri, open_timeout_ms=200, read_timeout_ms=200)


def test_a_stream_gives_frames_until_it_ends(server: CameraServer) -> None:
    server.then = (30, Mode.CLOSE)
    frames, error = read_until_error(server.uri.replace("//", "//admin:secret@"))
    assert [number_of(frame.image) for frame in frames] == [*range(20), *range(10)]
    assert all(is_whole(frame.image) for frame in frames)
    assert "ended after 30 frames" in str(error)
    assert "secret" not in str(error)


def test_a_stream_that_falls_silent_runs_into_the_time_out(server: CameraServer) -> None:
    server.then = (30, Mode.STALL)
    source = StreamSource(server.uri, read_timeout_ms=200)
    with pytest.raises(SourceError, match=r"gave nothing for 0\.2 s"):
        list(source.frames(threading.Event()))
    source.close()


def test_a_slow_consumer_of_a_stream_gets_the_newest_frame(server: CameraServer) -> None:
    server.then = (40, Mode.STALL)
    source = _Tapped(open_source(server.uri), at=25)
    reader: CameraReader[CapturedFrame] = CameraReader(
        "left",
        lambda: source,
        is_live=True,
        changed=threading.Condition(),
        prepare=lambda frame: frame,
    )
    reader.start()
    assert source.is_reached.wait(60)
    frame = reader.poll()
    assert frame is not None and frame.index >= 24
    assert number_of(frame.image) == frame.index % 20
    assert reader.dropped >= 24
    server.cut()
    reader.close()


class _Tapped:
    """A source that says when its frame ``at`` is there, all before it having been handed on."""

    def __init__(self, source: object, at: int) -> None:
        self.is_reached = threading.Event()
        self._source = source
        self._at = at

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        for frame in self._source.frames(stop):
            if frame.index == self._at:
                self.is_reached.set()
            yield frame
