"""GStreamer pipelines as text: CSI cameras, hardware decoding, and a user's own (``gst://``)."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import cv2

from patchline.runtime.camera.options import Codec, SourceOptions
from patchline.runtime.camera.redact import redact
from patchline.runtime.errors import ConfigurationError

LATENCY_MS = 200
"""What an RTSP stream is held back by default; GStreamer's own default is two seconds."""

HOW_TO_GET = (
    "use an OpenCV with GStreamer: JetPack's or apt's (apt-get install python3-opencv), in a "
    "virtual environment made with --system-site-packages and without pip's OpenCV"
)

_FRAMES = "videoconvert ! video/x-raw,format=BGR ! appsink max-buffers=1 drop=true sync=false"
_FROM_HARDWARE = "nvvidconv ! video/x-raw,format=BGRx"
_DEVICE_TREE = Path("/proc/device-tree/compatible")

_DEPAYLOADERS = {
    Codec.H264: "rtph264depay",
    Codec.H265: "rtph265depay",
    Codec.MJPEG: "rtpjpegdepay",
}
_PARSERS = {Codec.H264: "h264parse", Codec.H265: "h265parse"}
_SOFTWARE = {Codec.H264: "avdec_h264", Codec.H265: "avdec_h265", Codec.MJPEG: "jpegdec"}

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.DOTALL)
_APPSINK = re.compile(r"(?:^|!)\s*appsink(?=\s|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer; its list of backends names it regardless."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def is_jetson(device_tree: Path = _DEVICE_TREE) -> bool:
    """Whether this machine has the decoders and converters of a Jetson."""
    try:
        return b"nvidia,tegra" in device_tree.read_bytes()
    except OSError:
        return False


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """A camera on a Jetson's CSI port, through its image processor (libargus)."""
    caps = f"video/x-raw(memory:NVMM),format=NV12{_size_and_rate(options)}"
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! {_FROM_HARDWARE} ! {_FRAMES}"


def rtsp_pipeline(uri: str, options: SourceOptions, *, hardware: bool) -> str:
    """An RTSP stream over TCP; without a codec GStreamer finds the decoder by itself.

    Args:
        uri: its address, which may hold any characters but control characters.
        options: codec and latency.
        hardware: decode on a Jetson's own decoder.

    Raises:
        ConfigurationError: the address holds control characters.
    """
    latency = LATENCY_MS if options.latency_ms is None else options.latency_ms
    source = f"rtspsrc location={quoted(uri)} protocols=tcp latency={latency}"
    # A camera with a microphone offers a second stream.
    video = "application/x-rtp,media=video"
    if options.codec is Codec.AUTO:
        decoder = f"decodebin ! {_FROM_HARDWARE}" if hardware else "decodebin"
    else:
        decoder = f"{_DEPAYLOADERS[options.codec]} ! {_decoder(options.codec, hardware)}"
    return f"{source} ! {video} ! {decoder} ! {_FRAMES}"


def v4l2_pipeline(device: str, options: SourceOptions, *, hardware: bool) -> str:
    """A USB camera that encodes H.264 or H.265 itself, which OpenCV's V4L2 does not decode.

    Args:
        device: its number, or a path such as ``/dev/video0``.
        options: the codec, H.264 or H.265; size and rate, which must be ones it has.
        hardware: decode on a Jetson's own decoder.

    Raises:
        ConfigurationError: the path holds control characters.
    """
    path = f"/dev/video{device}" if device.isdigit() else device
    caps = f"video/x-{options.codec.value}{_size_and_rate(options)}"
    decoder = _decoder(options.codec, hardware)
    return f"v4l2src device={quoted(path)} ! {caps} ! {decoder} ! {_FRAMES}"


def gst_pipeline(text: str) -> str:
    """A user's own pipeline; without an ``appsink`` frames are taken from its end."""
    has_sink = _APPSINK.search(_QUOTED.sub('""', text)) is not None
    return text.strip() if has_sink else f"{text.strip()} ! {_FRAMES}"


def quoted(text: str) -> str:
    """As the value of a property, from which no other element or property can come.

    Raises:
        ConfigurationError: it holds control characters, which GStreamer's syntax has no place for.
    """
    if _CONTROL.search(text):
        raise ConfigurationError(f"{redact(text)!r} holds control characters: write them as %0A")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decoder(codec: Codec, hardware: bool) -> str:
    if codec is Codec.MJPEG:
        return _SOFTWARE[codec]
    decoder = f"nvv4l2decoder ! {_FROM_HARDWARE}" if hardware else _SOFTWARE[codec]
    return f"{_PARSERS[codec]} ! {decoder}"


def _size_and_rate(options: SourceOptions) -> str:
    caps = ""
    if options.width is not None and options.height is not None:
        caps += f",width={options.width},height={options.height}"
    if options.fps is not None:
        caps += f",framerate={frame_rate(options.fps)}"
    return caps


def frame_rate(fps: float) -> str:
    """A rate as the fraction that cameras name it by: 29.97 is 30000/1001."""
    ntsc = round(fps * 1.001)
    if ntsc > 0 and fps != round(fps) and abs(fps * 1.001 - ntsc) < 0.01:
        return f"{1000 * ntsc}/1001"
    rate = Fraction(fps).limit_denominator(1000)
    return f"{rate.numerator}/{rate.denominator}"
