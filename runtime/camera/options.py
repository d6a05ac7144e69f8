"""How a camera is opened: size, rate, codec and buffer; ``None`` is what it gives by itself."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from patchline.runtime.errors import ConfigurationError

LARGEST_PX = 16_384
LARGEST_FPS = 1000.0
LARGEST_LATENCY_MS = 60_000


class Codec(str, enum.Enum):
    """How a stream or a USB camera encodes its pictures."""

    AUTO = "auto"
    H264 = "h264"
    H265 = "h265"
    MJPEG = "mjpeg"


class Flip(str, enum.Enum):
    """How a picture is mirrored."""

    NONE = "none"
    HORIZONTAL = "horizontal"
    """Left becomes right."""

    VERTICAL = "vertical"
    """Top becomes bottom."""

    BOTH = "both"
    """A turn by 180 degrees, for a camera that hangs upside down."""


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a camera.

    Attributes:
        width: of its frames in pixels, before any crop, 1 to 16,384; only together with height.
        height: likewise.
        fps: frames per second, above 0, up to 1000.
        codec: of a stream or a USB camera.
        latency_ms: how much of a network stream is held back against jitter, 0 to 60,000.

    Raises:
        ConfigurationError: outside these ranges.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    codec: Codec = Codec.AUTO
    latency_ms: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ConfigurationError(
                f"width is {self.width} and height is {self.height}: a camera's size is asked for "
                "by both"
            )
        for name in ("width", "height"):
            side = getattr(self, name)
            _require(side is None or 1 <= side <= LARGEST_PX, name, side, f"1 to {LARGEST_PX}")
        fps = self.fps
        is_rate = fps is None or (math.isfinite(fps) and 0 < fps <= LARGEST_FPS)
        _require(is_rate, "fps", fps, f"above 0, up to {LARGEST_FPS:g}")
        latency = self.latency_ms
        is_latency = latency is None or 0 <= latency <= LARGEST_LATENCY_MS
        _require(is_latency, "latency_ms", latency, f"0 to {LARGEST_LATENCY_MS}")

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the options that ask for something."""
        values = (
            ("width", self.width is not None),
            ("height", self.height is not None),
            ("fps", self.fps is not None),
            ("codec", self.codec is not Codec.AUTO),
            ("latency_ms", self.latency_ms is not None),
        )
        return tuple(name for name, is_given in values if is_given)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigurationError(f"{name} is {value}, expected {expected}")


NO_OPTIONS = SourceOptions()
"""Frames as the camera gives them by itself."""
