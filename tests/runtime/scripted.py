"""A camera that does what a test tells it to, step by step, in the reader's own thread."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.camera.supervised import CameraReader

from .fakes import NOON, FakeClock, gray

PATIENCE_S = 60.0
IMAGE = gray(1)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.001)


class ScriptedSource:
    """Gives a frame, ends, fails or hangs when it is told to."""

    is_live = True
    path: Path | None = None
    skipped_unreadable = 0

    def __init__(self, name: str = "a script", fps: float | None = None) -> None:
        self.name, self.fps = name, fps
        self.is_closed = threading.Event()
        self.closed_in: str | None = None
        self.may_return = threading.Event()  # from a wedge
        self._steps: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def frame(self, index: int = 0) -> None:
        """Give a frame; returns when the reader has taken it over."""
        self._do(CapturedFrame(IMAGE, index, NOON, 1.0))

    def fail(self, error: BaseException) -> None:
        self._do(error)
        assert self.is_closed.wait(PATIENCE_S)

    def end(self) -> None:
        self._do(None)
        assert self.is_closed.wait(PATIENCE_S)

    def hang(self) -> None:
        """Hang in a native call, deaf to ``stop``, until ``may_return`` is set."""
        self._do("hang")

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        while not stop.is_set():
            try:
                step = self._steps.get(timeout=0.01)
            except queue.Empty:
                continue
            if step == "hang":
                self._done.put(None)
                assert self.may_return.wait(PATIENCE_S)
                continue
            try:
                if step is None:
                    return
                if isinstance(step, BaseException):
                    raise step
                yield step
            finally:
                self._done.put(None)

    def close(self) -> None:
        self.closed_in = threading.current_thread().name
        self.is_closed.set()

    def _do(self, step: Any) -> None:
        self._steps.put(step)
        self._done.get(timeout=PATIENCE_S)


class Bench:
    """A reader on a line of sources, opened in turn; an exception in the line is raised.

    After the last of them an opening finds nothing.
    """

    def __init__(
        self,
        *openings: FrameSource | BaseException | Callable[[], FrameSource],
        is_live: bool = True,
        limits: ReconnectLimits | None = None,
        prepare: Callable[[CapturedFrame], Any] = lambda frame: frame.index,
        may_end: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.changes: list[StateChange] = []
        self.changed = threading.Condition()
        self.opened = 0
        self._openings = list(openings)
        self.reader: CameraReader[Any] = CameraReader(
            "left",
            self._open,
            is_live=is_live,
            changed=self.changed,
            prepare=prepare,
            on_state=self.changes.append,
            limits=limits,
            clock=self.clock,
            rng=random.Random(1),
            may_end=may_end,
        )

    @property
    def states(self) -> list[StreamState]:
        return [change.state for change in self.changes]

    def __enter__(self) -> Bench:
        self.reader.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for source in self._openings:
            if isinstance(source, ScriptedSource):
                source.may_return.set()
        self.reader.close()

    def pass_s(self, seconds: float) -> Any:
        """Let time pass, and poll."""
        self.clock.time_s += seconds
        return self.reader.poll()

    def poll_until(self, holds: Callable[[], bool]) -> list[Any]:
        """Poll until something holds; what was given meanwhile."""
        given: list[Any] = []

        def polled() -> bool:
            if holds():
                return True
            frame = self.reader.poll()
            if frame is not None:
                given.append(frame)
            return holds()

        eventually(polled)
        return given

    def poll_until_state(self, state: StreamState) -> list[Any]:
        return self.poll_until(lambda: self.reader.state is state)

    def poll_until_over(self) -> list[Any]:
        return self.poll_until(lambda: self.reader.is_over)

    def reach_attempt(self, number: int) -> None:
        """Let time pass until the source is opened for the ``number``-th time."""
        for _ in range(1000):
            if self.opened >= number:
                return
            self.pass_s(1.0)
            time.sleep(0.001)
        raise AssertionError(f"it was opened {self.opened} times only")

    def _open(self) -> FrameSource:
        number = self.opened
        self.opened += 1
        if number >= len(self._openings):
            raise AssertionError("nothing is left to open")
        opening = self._openings[number]
        if isinstance(opening, BaseException):
            raise opening
        return opening() if callable(opening) else opening
