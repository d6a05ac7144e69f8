"""Open the source that an address names."""

from __future__ import annotations

import logging
from pathlib import Path

from patchline.runtime.camera.address import (
    EXPECTED,
    Address,
    Kind,
    parse_address,
    refuse_useless,
)
from patchline.runtime.camera.capture import VideoSource
from patchline.runtime.camera.generated import PatternSource, parse_pattern
from patchline.runtime.camera.gstreamer import (
    HOW_TO_GET,
    csi_pipeline,
    gst_pipeline,
    has_gstreamer,
    is_jetson,
    rtsp_pipeline,
    v4l2_pipeline,
)
from patchline.runtime.camera.gstreamer_source import GstreamerSource
from patchline.runtime.camera.options import NO_OPTIONS, Codec, SourceOptions
from patchline.runtime.camera.pictures import OnUnreadable, PictureSource
from patchline.runtime.camera.redact import redact
from patchline.runtime.camera.source import FrameSource
from patchline.runtime.camera.stream import StreamSource
from patchline.runtime.camera.v4l2 import UsbSource
from patchline.runtime.camera.wildcards import has_wildcards
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import SourceOpenError
from patchline.runtime.image_file import is_image

logger = logging.getLogger(__name__)

_CHECKS = {
    Kind.CSI: "Check the ribbon cable and the sensor number, that nvargus-daemon runs, that no "
    "other program holds the camera, and that it has the size and rate that are asked for",
    Kind.USB: "Check the cable and the number, that no other program holds the camera, and that it "
    "has the codec, size and rate that are asked for (v4l2-ctl --list-formats-ext)",
    Kind.RTSP: "Check the address, the user name and password, that the camera is on, its codec, "
    "and that the plugins are installed (gstreamer1.0-plugins-good, -bad and gstreamer1.0-libav)",
    Kind.GST: "Try it with gst-launch-1.0 -v, which says what is wrong",
}


def open_source(
    uri: str,
    *,
    options: SourceOptions = NO_OPTIONS,
    on_unreadable: OnUnreadable | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> FrameSource:
    """Open a source of frames.

    Args:
        uri: a picture, a folder (searched with its sub-folders), a pattern (``parts/*.png``,
            ``parts/**/*.png``), a video file, ``file://`` of these, a camera number,
            ``/dev/video0``, ``v4l2:///dev/video0``, ``csi://0``, ``rtsp://``, ``rtsps://``,
            ``http://``, ``https://``, ``gst://PIPELINE``, or ``test://`` (see
            :func:`~patchline.runtime.camera.generated.parse_pattern`).
        options: what is asked of the camera.
        on_unreadable: skip pictures that cannot be read and tell this function of each.
        clock: for time stamps and the pace of ``test://``.

    Raises:
        SourceOpenError: it does not open; the message holds no credentials.
        ConfigurationError: an unknown kind of address, wrong ``test://`` parameters, or an option
            that this kind of source has no use for.
    """
    address = parse_address(uri)
    refuse_useless(address, options)
    if address.kind is Kind.PATH:
        return _open_path(Path(address.value), on_unreadable, clock)
    if address.kind is Kind.TEST:
        return PatternSource(uri, clock=clock)
    if address.kind is Kind.USB:
        return _open_usb(address, options, clock)
    if address.kind is Kind.HTTP:
        return StreamSource(uri, options=options, clock=clock)
    if address.kind is Kind.RTSP:
        return _open_rtsp(address, options, clock)
    if address.kind is Kind.CSI:
        return _launch(csi_pipeline(int(address.value), options), address, clock)
    return _launch(gst_pipeline(address.value), address, clock)


def is_live_address(uri: str) -> bool:
    """Whether an address is a camera's, which may come back when it is lost.

    Nothing is opened. Files are not live, whether they exist or not, and neither is ``test://``
    with ``fps=0``.

    Raises:
        ConfigurationError: as of :func:`open_source`.
    """
    address = parse_address(uri)
    if address.kind is Kind.TEST:
        return parse_pattern(uri).fps > 0
    return address.kind is not Kind.PATH


def _open_path(path: Path, on_unreadable: OnUnreadable | None, clock: Clock) -> FrameSource:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise SourceOpenError(f"{redact(str(path))} cannot be opened: {error}") from error
    is_pattern = not path.exists() and has_wildcards(str(path))
    if is_folder or is_pattern or (is_file and is_image(path)):
        return PictureSource(path, on_unreadable=on_unreadable, clock=clock)
    if is_file:
        return VideoSource(path, clock=clock)
    raise SourceOpenError(f"{redact(str(path))} does not exist. Expected {EXPECTED}")


def _open_usb(address: Address, options: SourceOptions, clock: Clock) -> FrameSource:
    if options.codec in (Codec.H264, Codec.H265):
        pipeline = v4l2_pipeline(address.value, options, hardware=is_jetson())
        return _launch(pipeline, address, clock)
    return UsbSource(address.value, options=options, clock=clock)


def _open_rtsp(address: Address, options: SourceOptions, clock: Clock) -> FrameSource:
    if has_gstreamer():
        pipeline = rtsp_pipeline(address.uri, options, hardware=is_jetson())
        return _launch(pipeline, address, clock)
    source = StreamSource(address.uri, options=options, clock=clock)
    logger.info(
        "%s, decoded on the CPU: this OpenCV has no GStreamer. For hardware decoding %s",
        source.description,
        HOW_TO_GET,
    )
    return source


def _launch(pipeline: str, address: Address, clock: Clock) -> FrameSource:
    return GstreamerSource(pipeline, address.name, check=_CHECKS[address.kind], clock=clock)
