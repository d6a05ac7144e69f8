"""GStreamer pipelines: their text, read by GStreamer's own parser, and frames through them."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.runtime.camera import gstreamer_source as source_module
from patchline.runtime.camera import open as open_module
from patchline.runtime.camera.gstreamer import (
    csi_pipeline,
    frame_rate,
    gst_pipeline,
    has_gstreamer,
    is_jetson,
    quoted,
    rtsp_pipeline,
    v4l2_pipeline,
)
from patchline.runtime.camera.gstreamer_source import GstreamerSource
from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.options import NO_OPTIONS, Codec, SourceOptions
from patchline.runtime.errors import ConfigurationError, SourceError, SourceOpenError

from .fakes import gray
from .rtsp_server import RtspServer, needs_rtsp_server
from .system_python import run_system_python, why_no_opencv, why_no_parser

END = "videoconvert ! video/x-raw,format=BGR ! appsink max-buffers=1 drop=true sync=false"
needs_gst_parser = pytest.mark.usefixtures("gst_parser")
needs_gst_opencv = pytest.mark.usefixtures("gst_opencv")
FULL_HD = SourceOptions(width=1920, height=1080, fps=29.97)


@pytest.fixture
def gst_parser() -> None:
    if why_no_parser():
        pytest.skip(
            "GStreamer's parser is not here (apt-get install gir1.2-gstreamer-1.0 python3-gi "
            f"gstreamer1.0-plugins-base gstreamer1.0-plugins-good): {why_no_parser()}"
        )


@pytest.fixture
def gst_opencv() -> None:
    if why_no_opencv():
        pytest.skip(
            "no OpenCV with GStreamer is here (apt-get install python3-opencv "
            f"gstreamer1.0-libav): {why_no_opencv()}"
        )


def test_a_csi_camera_goes_through_the_image_processor() -> None:
    assert csi_pipeline(1, FULL_HD) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1920,"
        "height=1080,framerate=30000/1001 ! nvvidconv ! video/x-raw,format=BGRx ! " + END
    )
    assert "width" not in csi_pipeline(0, NO_OPTIONS)


@pytest.mark.parametrize(
    ("codec", "hardware", "decoder"),
    [
        (Codec.AUTO, False, "decodebin"),
        (Codec.AUTO, True, "decodebin ! nvvidconv ! video/x-raw,format=BGRx"),
        (Codec.H264, False, "rtph264depay ! h264parse ! avdec_h264"),
        (
            Codec.H264,
            True,
            "rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx",
        ),
        (Codec.H265, False, "rtph265depay ! h265parse ! avdec_h265"),
        (Codec.MJPEG, True, "rtpjpegdepay ! jpegdec"),
    ],
)
def test_a_stream_is_decoded_by_what_the_machine_has(
    codec: Codec, hardware: bool, decoder: str
) -> None:
    options = SourceOptions(codec=codec, latency_ms=80)
    assert rtsp_pipeline("rtsp://cam/1", options, hardware=hardware) == (
        'rtspsrc location="rtsp://cam/1" protocols=tcp latency=80 ! '
        f"application/x-rtp,media=video ! {decoder} ! {END}"
    )


def test_a_stream_is_held_back_less_than_gstreamer_would() -> None:
    assert "latency=200 " in rtsp_pipeline("rtsp://cam/1", NO_OPTIONS, hardware=False)
    no_latency = SourceOptions(latency_ms=0)
    assert "latency=0 " in rtsp_pipeline("rtsp://cam/1", no_latency, hardware=False)


def test_a_usb_camera_that_encodes_by_itself() -> None:
    options = SourceOptions(width=640, height=480, fps=25, codec=Codec.H264)
    expected = (
        'v4l2src device="/dev/video2" ! video/x-h264,width=640,height=480,framerate=25/1 ! '
        f"h264parse ! avdec_h264 ! {END}"
    )
    assert v4l2_pipeline("2", options, hardware=False) == expected
    assert v4l2_pipeline("/dev/video2", options, hardware=False) == expected


@pytest.mark.parametrize(
    ("text", "has_sink"),
    [
        ("videotestsrc ! appsink", True),
        ("videotestsrc ! appsink max-buffers=2", True),
        ("videotestsrc !appsink", True),
        ("appsink name=a videotestsrc ! a.", True),
        ("videotestsrc name=appsink", False),
        ("videotestsrc ! appsinks", False),
        ('filesrc location="a ! appsink b" ! decodebin', False),
        ("filesrc location='a ! appsink b' ! decodebin", False),
    ],
)
def test_frames_are_taken_from_the_end_of_a_pipeline_without_a_sink(
    text: str, has_sink: bool
) -> None:
    assert gst_pipeline(f" {text} ") == (text if has_sink else f"{text} ! {END}")


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (30.0, "30/1"),
        (29.97, "30000/1001"),
        (59.94, "60000/1001"),
        (23.976, "24000/1001"),
        (12.5, "25/2"),
        (0.5, "1/2"),
        (1000.0, "1000/1"),
        (0.2, "1/5"),
    ],
)
def test_rates_are_the_fractions_that_cameras_know(fps: float, expected: str) -> None:
    assert frame_rate(fps) == expected


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\x7fb", "a\tb"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="control characters"):
        quoted(text)


def test_control_characters_are_refused_without_the_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        quoted("rtsp://admin:secret@cam/1\n")
    assert "secret" not in str(caught.value)


def test_a_jetson_says_so_in_its_device_tree(tmp_path: Path) -> None:
    tree = tmp_path / "compatible"
    assert not is_jetson(tree)
    tree.write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert not is_jetson(tree)
    tree.write_bytes(b"nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0")
    assert is_jetson(tree)


PARSE = """
import json, sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)

# A Jetson's elements, in name: others stand in for them.
for name, other in json.loads(sys.argv[1]).items():
    if Gst.ElementFactory.find(name) is None:
        kind = Gst.ElementFactory.find(other).load().get_element_type()
        Gst.Element.register(None, name, 0, kind)

def all_of(pipeline):
    if not isinstance(pipeline, Gst.Bin):
        return [pipeline]
    elements, iterator = [], pipeline.iterate_sorted()
    while True:
        result, element = iterator.next()
        if result != Gst.IteratorResult.OK:
            return elements[::-1]
        elements.append(element)

def read(element):
    names = ("location", "num-buffers", "device", "latency", "max-buffers", "drop")
    values = {name: element.get_property(name) for name in names if element.find_property(name)}
    if element.get_factory().get_name() == "capsfilter":
        values["caps"] = element.get_property("caps").to_string()
    return [element.get_factory().get_name(), values]

def parse(text):
    return Gst.parse_launch_full(text, None, Gst.ParseFlags.FATAL_ERRORS)

print(json.dumps([[read(e) for e in all_of(parse(text))] for text in json.loads(sys.argv[2])]))
"""


STAND_INS = {
    "nvarguscamerasrc": "fakesrc",
    "nvvidconv": "videoconvert",
    "nvv4l2decoder": "decodebin",
}
"""Of one kind, GStreamer names all after the one that was made first."""


def parsed(*pipelines: str) -> list[list[tuple[str, dict[str, Any]]]]:
    """The elements of each pipeline with their properties, as GStreamer understood them."""
    answer = json.loads(run_system_python(PARSE, json.dumps(STAND_INS), json.dumps(pipelines)))
    return [
        [(STAND_INS.get(name, name), values) for name, values in elements] for elements in answer
    ]


NASTY = [
    'rtsp://u:p"w@cam/1',
    "rtsp://u:p'w@cam/1",
    "rtsp://cam/1 ! fakesink",
    'rtsp://cam/1" ! filesink location="/tmp/stolen',
    'rtsp://cam/1\\" ! fakesink name=\\"x',
    "rtsp://cam/a\\",
    "rtsp://cam/a\\\\",
    "rtsp://cam/1?a=b&c=d;e=(f){g}[h]",
    "rtsp://cam/ü#%20\u2028",
    "rtsp://cam/1 . name=x latency=5",
]


@needs_gst_parser
def test_no_address_becomes_more_than_one_property() -> None:
    for address, elements in zip(
        NASTY, parsed(*(f"filesrc location={quoted(address)}" for address in NASTY)), strict=True
    ):
        assert [(name, values["location"]) for name, values in elements] == [("filesrc", address)]


@needs_gst_parser
def test_gstreamer_reads_the_pipelines_as_they_are_meant() -> None:
    camera, caps, rest = (
        csi_pipeline(1, FULL_HD).replace("sensor-id", "num-buffers").split(" ! ", 2)
    )
    csi, nvmm, stream, jetson, usb = parsed(
        f"{camera} ! {caps.replace('(memory:NVMM)', '')} ! {rest}",  # the stand-in knows none
        f"{camera} ! {caps} ! fakesink",
        rtsp_pipeline(NASTY[2], SourceOptions(latency_ms=70), hardware=False),
        rtsp_pipeline("rtsp://cam/1", SourceOptions(codec=Codec.H264), hardware=True),
        v4l2_pipeline("1", SourceOptions(codec=Codec.H264, fps=25), hardware=True),
    )
    assert [name for name, _ in csi if name != "capsfilter"] == [
        "fakesrc",
        "videoconvert",
        "videoconvert",
        "appsink",
    ]
    assert csi[0][1]["num-buffers"] == 1
    assert "memory:NVMM" in nvmm[1][1]["caps"]
    assert "30000/1001" in nvmm[1][1]["caps"]
    assert (csi[-1][1]["max-buffers"], csi[-1][1]["drop"]) == (1, True)
    assert dict(stream)["rtspsrc"] == {"location": NASTY[2], "latency": 70}
    assert "decodebin" in dict(stream)
    assert {"rtph264depay", "h264parse", "decodebin", "videoconvert"} <= set(dict(jetson))
    assert dict(usb)["v4l2src"]["device"] == "/dev/video1"


class FakeCapture:
    """What ``cv2.VideoCapture`` is for a pipeline: remembers its arguments, gives three frames."""

    opened: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        type(self).opened = arguments
        self._left = 3

    def isOpened(self) -> bool:
        return "closed" not in str(self.opened[0])

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return (True, gray(1)) if self._left >= 0 else (False, None)

    def get(self, name: int) -> float:
        return 25.0

    def release(self) -> None: ...


@pytest.fixture
def with_gstreamer(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    """An OpenCV that has GStreamer, as far as ours looks."""
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(open_module, "has_gstreamer", lambda: True)
    monkeypatch.setattr(source_module, "has_gstreamer", lambda: True)
    return FakeCapture


@pytest.mark.parametrize(
    ("uri", "options", "pipeline"),
    [
        ("csi://1", FULL_HD, csi_pipeline(1, FULL_HD)),
        ("gst://videotestsrc", NO_OPTIONS, gst_pipeline("videotestsrc")),
        ("rtsp://u:p@cam/1", NO_OPTIONS, rtsp_pipeline("rtsp://u:p@cam/1", NO_OPTIONS, hardware=0)),
        (
            "/dev/video3",
            SourceOptions(codec=Codec.H265),
            v4l2_pipeline("3", SourceOptions(codec=Codec.H265), hardware=False),
        ),
    ],
)
def test_what_gstreamer_reads_is_opened_by_its_pipeline(
    with_gstreamer: type[FakeCapture], uri: str, options: SourceOptions, pipeline: str
) -> None:
    source = open_source(uri, options=options)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10_000]
    assert with_gstreamer.opened == (pipeline, cv2.CAP_GSTREAMER, timeouts)
    assert source.is_live
    assert isinstance(source, GstreamerSource)
    assert source.description.endswith(" through GStreamer")
    assert ":p@" not in source.description
    frames = source.frames(threading.Event())
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceError, match="ended after 3 frames"):
        next(frames)


@pytest.mark.parametrize(
    ("uri", "what"), [("gst://closed", "gst-launch-1.0"), ("rtsp://u:p@closed/1", "plugins")]
)
def test_what_does_not_start_says_what_to_look_at(
    with_gstreamer: type[FakeCapture], uri: str, what: str
) -> None:
    with pytest.raises(SourceOpenError, match=f"does not open through GStreamer.*{what}") as caught:
        open_source(uri)
    assert ":p@" not in str(caught.value)


def test_an_old_opencv_is_not_given_what_it_refuses(
    with_gstreamer: type[FakeCapture],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cv2, "__version__", "4.6.0")
    open_source("gst://videotestsrc")
    assert with_gstreamer.opened[2] == []
    assert "OpenCV 4.6.0" in caplog.text


without_gstreamer = pytest.mark.skipif(has_gstreamer(), reason="this OpenCV has GStreamer")


@without_gstreamer
@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("csi://0", NO_OPTIONS),
        ("gst://videotestsrc", NO_OPTIONS),
        ("0", SourceOptions(codec=Codec.H264)),
    ],
)
def test_without_gstreamer_one_sentence_says_how_to_get_it(
    uri: str, options: SourceOptions
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_source(uri, options=options)
    message = str(caught.value)
    assert message.startswith(f"{uri} needs GStreamer, and OpenCV {cv2.__version__}")
    assert "JetPack's or apt's (apt-get install python3-opencv)" in message


@without_gstreamer
@needs_rtsp_server
def test_without_gstreamer_a_stream_is_read_through_ffmpeg_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with RtspServer(user_password="admin:secret") as camera:
        source = open_source(camera.uri.replace("//", "//admin:secret@"))
        frame = next(source.frames(threading.Event()))
        source.close()
    assert frame.image.shape == (120, 160, 3)
    assert source.description == f"rtsp://***@127.0.0.1:{camera.port}/line through FFmpeg"
    assert "through FFmpeg, decoded on the CPU: this OpenCV has no GStreamer" in caplog.text
    assert "secret" not in caplog.text


READ = """
import sys, threading
from patchline.runtime.camera.gstreamer_source import GstreamerSource
from patchline.runtime.errors import SourceError

source = GstreamerSource(sys.argv[1], "a pipeline", check="")
frames = source.frames(threading.Event())
try:
    for _, frame in zip(range(5), frames):
        print(frame.index, *frame.image.shape, frame.image.dtype)
except SourceError as error:
    print(error)
source.close()
"""


@needs_gst_opencv
def test_a_real_pipeline_gives_frames(tmp_path: Path) -> None:
    text = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=50/1"
    lines = run_system_python(READ, gst_pipeline(text), folder=tmp_path).splitlines()
    assert lines == [f"{index} 48 64 3 uint8" for index in range(5)]


@needs_gst_opencv
def test_a_real_pipeline_that_ends_says_so(tmp_path: Path) -> None:
    text = (
        "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48 ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink sync=false"
    )
    *frames, last = run_system_python(READ, gst_pipeline(text), folder=tmp_path).splitlines()
    assert frames == [f"{index} 48 64 3 uint8" for index in range(3)]
    assert last.startswith("a pipeline ended after 3 frames")


@needs_gst_opencv
@needs_rtsp_server
@pytest.mark.parametrize("codec", [Codec.AUTO, Codec.MJPEG])
def test_a_real_stream_comes_through_gstreamer(tmp_path: Path, codec: Codec) -> None:
    kind = "h264" if codec is Codec.AUTO else codec.value
    with RtspServer(kind, user_password="admin:secret") as camera:
        uri = camera.uri.replace("//", "//admin:secret@")
        pipeline = rtsp_pipeline(uri, SourceOptions(codec=codec), hardware=False)
        lines = run_system_python(READ, pipeline, folder=tmp_path).splitlines()
    assert lines == [f"{index} 120 160 3 uint8" for index in range(5)]
