"""Capture in its own thread, so that the next frame is read while this one is judged."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.supervised import READ_AHEAD

_POLL_S = 0.05  # a stop asked for in a signal handler may not take locks, so it is looked at
_JOIN_S = 2.0


class BufferPolicy(enum.Enum):
    """What happens to frames that come faster than they are judged."""

    NEWEST = "newest"
    """A newer frame replaces the waiting one: what a live line needs."""

    EVERY = "every"
    """The source waits: no frame of a file is left out."""

    @classmethod
    def of(cls, source: FrameSource) -> BufferPolicy:
        """The policy that fits a source."""
        return cls.NEWEST if source.is_live else cls.EVERY


class FrameReader:
    """Iterates over a source that is read in a thread of its own.

    Use it as a context manager; leaving it stops the thread and closes the source. What the
    source raises is raised here, after the frames that came before it.

    Args:
        source: read once; it belongs to the reader from here on.
        stop: set by anyone to end the iteration.
        policy: by default the one that fits the source.

    Attributes:
        dropped: frames that were replaced by newer ones before anyone took them.
    """

    def __init__(
        self,
        source: FrameSource,
        stop: threading.Event | None = None,
        policy: BufferPolicy | None = None,
    ) -> None:
        self.dropped = 0
        self._source = source
        self._policy = policy or BufferPolicy.of(source)
        self._outer_stop = stop or threading.Event()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._buffer: deque[CapturedFrame] = deque()
        self._error: BaseException | None = None
        self._is_at_end = False
        # A daemon: a native read that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> FrameReader:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[CapturedFrame]:
        while (frame := self._take()) is not None:
            yield frame

    def close(self) -> None:
        """Stop the thread, which closes the source; waits two seconds for it at most."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _is_stopped(self) -> bool:
        return self._stop.is_set() or self._outer_stop.is_set()

    def _take(self) -> CapturedFrame | None:
        with self._changed:
            while not (self._buffer or self._is_at_end or self._is_stopped()):
                self._changed.wait(_POLL_S)
            if self._is_stopped():
                return None
            if self._buffer:
                frame = self._buffer.popleft()
                self._changed.notify_all()
                return frame
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._source.frames(self._stop):
                self._put(frame)
                if self._is_stopped():
                    break
        except BaseException as caught:  # whatever it is, the consumer has to hear of it
            error = caught
        finally:
            self._source.close()
            with self._changed:
                self._error, self._is_at_end = error, True
                self._changed.notify_all()

    def _put(self, frame: CapturedFrame) -> None:
        with self._changed:
            if self._policy is BufferPolicy.NEWEST:
                self.dropped += len(self._buffer)
                self._buffer.clear()
            while len(self._buffer) >= READ_AHEAD and not self._is_stopped():
                self._changed.wait(_POLL_S)
            self._buffer.append(frame)
            self._changed.notify_all()
