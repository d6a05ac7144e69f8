"""How a camera is opened: size, rate, codec and buffer; ``None`` is what it gives by itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Codec(str, enum.Enum):
    """How a stream or a USB camera encodes its pictures."""

    AUTO = "auto"
    H264 = "h264"
    H265 = "h265"
    MJPEG = "mjpeg"


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a camera.

    Attributes:
        width: of its frames in pixels, before any crop.
        height: likewise.
        fps: frames per second.
        codec: of a stream or a USB camera.
        latency_ms: how much of a network stream is held back against jitter.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    codec: Codec = Codec.AUTO
    latency_ms: int | None = None


NO_OPTIONS = SourceOptions()
