"""One opening of a source, read in a thread of its own until it ends or is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.clock import Clock
from patchline.runtime.errors import SourceError

_JOIN_S = 2.0


class Attempt:
    """Opens a source, gives its frames away, closes it; all in one thread.

    What it knows of itself is guarded by the lock of ``changed``. A thread whose native call never
    returns is a daemon and stays behind; if the call does return, the thread closes its source.

    Args:
        name: of the camera, for the thread's name.
        open_source: opens it; may block, and raise anything.
        give: takes each frame; it looks at ``stop`` itself if it waits.
        changed: notified when the source is open and when it is over.
        clock: for the signs of life.

    Attributes:
        stop: set it to end the reading.
        is_open: whether the source has been opened.
        is_done: whether no frame will come from here any more.
        error: what ended it; ``None`` for an ordinary end.
        source: once it is open.
        fps: what the source says, once it is open.
        frames: given so far.
        beat_s: clock time of the last sign of life.
    """

    def __init__(
        self,
        name: str,
        open_source: Callable[[], FrameSource],
        give: Callable[[Attempt, CapturedFrame], None],
        changed: threading.Condition,
        clock: Clock,
    ) -> None:
        self.stop = threading.Event()
        self.is_open = self.is_done = False
        self.error: BaseException | None = None
        self.source: FrameSource | None = None
        self.fps: float | None = None
        self.frames = 0
        self.beat_s = clock.monotonic()
        self._first_frame_s = self._last_frame_s = 0.0
        self._open_source, self._give = open_source, give
        self._changed, self._clock = changed, clock
        self._thread = threading.Thread(target=self._run, name=f"capture-{name}", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    @property
    def ran_s(self) -> float:
        """Seconds from its first frame to its latest."""
        return self._last_frame_s - self._first_frame_s

    @property
    def skipped_unreadable(self) -> int:
        """Unreadable pictures that its source left out so far."""
        return self.source.skipped_unreadable if self.source is not None else 0

    def start(self) -> None:
        """Start the thread; a machine that has no thread left is an error of the source."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self.finish(SourceError(f"no thread could be started to read it: {error}"))

    def beat(self) -> None:
        """Give a sign of life."""
        self.beat_s = self._clock.monotonic()

    def count_frame(self) -> None:
        """Count a frame that was given; the lock is held."""
        self.beat()
        if self.frames == 0:
            self._first_frame_s = self.beat_s
        self._last_frame_s = self.beat_s
        self.frames += 1

    def finish(self, error: BaseException | None) -> None:
        """End it for whoever looks, whatever its thread does; what came first holds."""
        self.stop.set()
        with self._changed:
            if not self.is_done:
                self.is_done, self.error = True, error
            self._changed.notify_all()

    def join(self) -> None:
        """Wait two seconds at most for the thread."""
        if self.is_alive and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            source = self._open_source()
            try:
                self._read(source)
            finally:
                source.close()
        except BaseException as caught:  # whatever it is, the supervisor has to hear of it
            error = caught
        self.finish(error)

    def _read(self, source: FrameSource) -> None:
        fps = source.fps
        with self._changed:
            self.source, self.fps, self.is_open = source, fps, True
            self.beat()
            self._changed.notify_all()
        for frame in source.frames(self.stop):
            self._give(self, frame)
            if self.stop.is_set():
                return
