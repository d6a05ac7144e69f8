"""What every source of frames is: a folder, a video, a camera, a stream, a generated pattern."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt


@dataclass(frozen=True)
class CapturedFrame:
    """One frame as its source gives it.

    Attributes:
        image: whatever the source gives: 8- or 16-bit, one to four channels, of any size;
            :func:`~patchline.runtime.preprocess.preprocess` takes it from here.
        index: position in the source from 0. A gap means that frames were dropped or unreadable.
        time: wall-clock time at which the frame was there, with its time zone.
        read_ms: time the source took to give it; a live source waits for its camera here.
        file: for pictures their path relative to the folder, with forward slashes.
        taken_s: clock time at which the reader took it from the source, in seconds. Ages come from
            here, for the wall clock jumps when it is set.
    """

    image: npt.NDArray[Any]
    index: int
    time: datetime
    read_ms: float
    file: str | None = None
    taken_s: float = 0.0


class FrameSource(Protocol):
    """Anything that gives frames one by one. It is open once it is made."""

    @property
    def name(self) -> str:
        """What the user called it, without credentials; safe to print."""

    @property
    def is_live(self) -> bool:
        """Whether frames come at their own pace, and are lost when nobody takes them."""

    @property
    def fps(self) -> float | None:
        """Frames per second as far as the source knows."""

    @property
    def path(self) -> Path | None:
        """The local file or folder behind it, which no output may touch."""

    @property
    def skipped_unreadable(self) -> int:
        """How many unreadable pictures were left out so far."""

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        """Give the frames, from one thread, once.

        Ends by itself at the end of the material, and soon after ``stop`` is set.

        Raises:
            SourceError: the source fails or ends before it should.
            ImageReadError: a picture cannot be read, and skipping was not asked for.
        """

    def close(self) -> None:
        """Release the device or file, from the thread that read it. A second call is harmless."""
