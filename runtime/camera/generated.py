"""``test://``: a generated part on a generated belt, to try everything without hardware."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.test_pattern import (
    DEFECTS,
    LARGEST_PX,
    SMALLEST_PX,
    draw_part,
)
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.preprocess import Frame

_GOOD_PARTS = 8  # drawn once and shown in turn: drawing takes longer than a frame lasts


@dataclass(frozen=True)
class Pattern:
    """The parameters of a ``test://`` address.

    Attributes:
        frames: how many there are; 0 is without end.
        fps: frames per second of the live camera it plays; 0 gives them as fast as they are read.
        width: in pixels.
        height: in pixels.
        defect_every: every so many frames one with a defect; 0 for none.
        seed: of the drawing.
    """

    frames: int = 0
    fps: float = 30.0
    width: int = 640
    height: int = 480
    defect_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _require(math.isfinite(self.fps) and 0 <= self.fps <= 1000, "fps", self.fps, "0 to 1000")
        for name in ("width", "height"):
            side = getattr(self, name)
            is_drawable = SMALLEST_PX <= side <= LARGEST_PX
            _require(is_drawable, name, side, f"{SMALLEST_PX} to {LARGEST_PX} pixels")
        for name in ("frames", "defect_every", "seed"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


class PatternSource:
    """Frames of a :class:`Pattern`, the same for the same seed."""

    path: Path | None = None
    skipped_unreadable = 0

    def __init__(self, uri: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = uri
        self._pattern = parse_pattern(uri)
        self._clock = clock
        self._parts = _draw_parts(self._pattern)

    @property
    def is_live(self) -> bool:
        """Whether it plays a camera; ``fps=0`` is read like a file."""
        return self._pattern.fps > 0

    @property
    def fps(self) -> float | None:
        """The ``fps`` parameter."""
        return self._pattern.fps or None

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        """Give the frames at their pace; see :meth:`FrameSource.frames`."""
        period = 1.0 / self._pattern.fps if self.is_live else 0.0
        first = self._clock.monotonic()
        index = 0
        while not stop.is_set() and (self._pattern.frames == 0 or index < self._pattern.frames):
            start = self._clock.monotonic()
            # From the first frame on, so that waiting does not add up to a slower camera.
            if self.is_live and self._clock.wait(stop, first + index * period - start):
                return
            image = self._image(index).copy()
            read_ms = 1000.0 * (self._clock.monotonic() - start)
            yield CapturedFrame(image, index, self._clock.now(), read_ms)
            index += 1

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, index: int) -> Frame:
        good, bad = self._parts
        every = self._pattern.defect_every
        if every and (index + 1) % every == 0:
            return bad[((index + 1) // every - 1) % len(bad)]
        return good[index % len(good)]


def parse_pattern(uri: str) -> Pattern:
    """Read ``test://?frames=100&fps=30&width=640&height=480&defect_every=50&seed=0``.

    Raises:
        ConfigurationError: a parameter is unknown, given twice, ill-typed or out of range; it is
            named.
    """
    parts = urlsplit(uri)
    if parts.netloc or parts.path.strip("/") or parts.fragment:
        raise ConfigurationError(f"{uri}: expected test://?name=value&…, with {_known()}")
    values: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _TYPES:
            raise ConfigurationError(f"{uri}: unknown parameter {name!r}, expected {_known()}")
        if name in values:
            raise ConfigurationError(f"{uri}: {name} is given twice")
        values[name] = _parse(uri, name, text)
    return Pattern(**values)


def _parse(uri: str, name: str, text: str) -> int | float:
    kind = _TYPES[name]
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigurationError(f"{uri}: {name} is {text!r}, expected {wanted}") from None


_TYPES: dict[str, Callable[[str], int | float]] = {
    field.name: float if field.name == "fps" else int for field in fields(Pattern)
}


def _known() -> str:
    return ", ".join(_TYPES)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigurationError(f"test://: {name} is {value}, expected {expected}")


def _draw_parts(pattern: Pattern) -> tuple[list[Frame], list[Frame]]:
    size = (pattern.height, pattern.width)
    first = pattern.seed * (_GOOD_PARTS + len(DEFECTS))
    good = [draw_part(first + i, size=size)[0] for i in range(_GOOD_PARTS)]
    bad = [
        draw_part(first + _GOOD_PARTS + i, defect=defect, size=size)[0]
        for i, defect in enumerate(DEFECTS)
    ]
    return good, bad
