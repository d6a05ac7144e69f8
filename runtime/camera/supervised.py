"""A camera that never stops: opened again when it stalls or is lost, read as the line needs it."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from patchline.runtime.camera.attempt import Attempt
from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.states import OnState, StreamState
from patchline.runtime.camera.supervisor import Supervisor
from patchline.runtime.camera.teller import StateTeller
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import FrameError, SourceError

T = TypeVar("T")

READ_AHEAD = 3
"""Frames that a file is ahead of its consumer, at most."""

_POLL_S = 0.05
_OVER = (StreamState.ENDED, StreamState.FAILED)


class CameraReader(Generic[T]):
    """One camera or file of a line. Poll it at least every second: that also supervises it.

    A live camera keeps its newest frame only. When it fails, stalls or ends, it is opened again in
    a new thread after a back-off. A file gives every frame in order and is never opened again.

    Args:
        name: of the camera, unique in the line.
        open_source: opens it, each time anew; called in the capture thread.
        is_live: whether it is a camera; see above.
        changed: shared by all cameras of a line; notified at each frame and change of state.
        prepare: makes of a frame what the line needs (crop, resize). Called by :meth:`poll` for
            the frames of a camera, and ahead of it in the capture thread for those of a file.
        on_state: told of each change of state from the thread that polls, closes or reopens.
        limits: when it counts as lost, and how often it is opened again.
        clock: for all of that.
        rng: for the jitter of the back-off.
        may_end: a camera that ends by itself without an error has ended (``test://?frames=100``)
            and is not lost.

    Attributes:
        captured: frames that came, those of abandoned threads left out.
        dropped: live frames that a newer one replaced before anyone took them.
        refused: live frames that ``prepare`` refused; the camera goes on.
    """

    def __init__(
        self,
        name: str,
        open_source: Callable[[], FrameSource],
        *,
        is_live: bool,
        changed: threading.Condition,
        prepare: Callable[[CapturedFrame], T],
        on_state: OnState = lambda change: None,
        limits: ReconnectLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        may_end: bool = False,
    ) -> None:
        self.name = name
        self.captured = self.dropped = self.refused = 0
        self._is_live, self._open_source = is_live, open_source
        self._changed, self._prepare, self._clock = changed, prepare, clock
        self._teller = StateTeller(name, on_state, clock)
        self._supervisor = Supervisor(
            name,
            self._make_attempt,
            self._teller,
            is_live=is_live,
            may_end=may_end,
            limits=limits or ReconnectLimits(),
            clock=clock,
            rng=rng or random.Random(),
        )
        self._waiting: deque[Any] = deque()  # frames of a camera, prepared ones of a file
        self._first_index = self._next_index = 0
        self._numbered: Attempt | None = None
        self._told_refusal: Attempt | None = None

    @property
    def state(self) -> StreamState:
        """Where it is between its first opening and its end."""
        return self._teller.state

    @property
    def detail(self) -> str:
        """Why it is in that state, as a sentence; may be empty."""
        return self._teller.detail

    @property
    def is_over(self) -> bool:
        """Whether no frame is left and none will come."""
        return self.state in _OVER

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`poll` would find a frame or an end: look before you wait."""
        attempt = self._supervisor.attempt
        has_ended = attempt is not None and attempt.is_done and not self.is_over
        return bool(self._waiting) or has_ended

    @property
    def error(self) -> BaseException | None:
        """Why it failed; ``None`` in every other state."""
        return self._supervisor.error

    @property
    def needs_restart(self) -> bool:
        """Whether it failed because its threads hang: only a new process can open it again."""
        return self._supervisor.needs_restart

    @property
    def reopenings(self) -> int:
        """How often frames came again after the camera had been lost."""
        return self._supervisor.reopenings

    @property
    def skipped_unreadable(self) -> int:
        """Unreadable pictures that were left out."""
        attempt = self._supervisor.attempt
        now = attempt.skipped_unreadable if attempt is not None else 0
        return self._supervisor.skipped_before + now

    @property
    def heartbeat_s(self) -> float:
        """Clock time up to which the capture thread's silence is nothing unusual."""
        now_s, attempt = self._clock.monotonic(), self._supervisor.attempt
        if attempt is None or attempt.is_done or self.is_over:
            return now_s
        return min(now_s, self._supervisor.good_until_s(attempt))

    def start(self) -> None:
        """Open the source, in the capture thread."""
        with self._changed:
            if self.is_over:  # it was closed before it began
                return
            self._teller.set(StreamState.CONNECTING, is_news=True)
            self._supervisor.begin()
        self._teller.tell()

    def poll(self) -> T | None:
        """The next frame if there is one; never waits. The caller holds no lock.

        Raises:
            Exception: whatever ``prepare`` raises for a live frame that is no FrameError.
        """
        with self._changed:
            if not self.is_over:
                self._supervisor.check(has_waiting=bool(self._waiting))
            taken = self._waiting.popleft() if self._waiting else None
            if (taken is not None and not self._is_live) or self._teller.has_untold:
                self._changed.notify_all()
        self._teller.tell()
        if not self._is_live or taken is None:
            return taken
        return self._prepare_live(taken)

    def reopen(self, reason: str) -> None:
        """Give the capture thread up and open a camera again; a file fails with the reason."""
        with self._changed:
            attempt = None if self.is_over else self._supervisor.attempt
            if attempt is not None and self._is_live:
                self._supervisor.abandon(attempt, reason)
            elif attempt is not None:
                attempt.finish(SourceError(f"{self.name}: {reason}"))
            self._changed.notify_all()
        self._teller.tell()

    def close(self) -> None:
        """End it; waits two seconds at most for the capture thread. A second call does nothing."""
        with self._changed:
            attempt = self._supervisor.attempt
            self._waiting.clear()
            if attempt is not None:
                attempt.stop.set()
            if not self.is_over:
                self._teller.set(StreamState.ENDED, "it was told to stop")
            self._changed.notify_all()
        self._teller.tell()
        if attempt is not None:
            attempt.join()

    def _make_attempt(self) -> Attempt:
        give = self._give_live if self._is_live else self._give_file
        return Attempt(self.name, self._open_source, give, self._changed, self._clock)

    def _give_live(self, attempt: Attempt, frame: CapturedFrame) -> None:
        with self._changed:
            if attempt.stop.is_set():
                return  # it was given up; another thread may read the camera by now
            attempt.count_frame()
            if attempt is not self._numbered:
                # A source counts from 0 at each opening; the camera goes on counting.
                self._numbered, self._first_index = attempt, self._next_index
            index = max(self._first_index + frame.index, self._next_index)
            self._next_index = index + 1
            self.captured += 1
            self.dropped += len(self._waiting)
            self._waiting.clear()
            # count_frame has just looked at the clock.
            self._waiting.append(replace(frame, index=index, taken_s=attempt.beat_s))
            self._changed.notify_all()

    def _give_file(self, attempt: Attempt, frame: CapturedFrame) -> None:
        frame = replace(frame, taken_s=self._clock.monotonic())
        try:
            prepared = self._prepare(frame)
        except FrameError as error:
            raise FrameError(f"{self._label(frame)}: {error}") from error
        with self._changed:
            while len(self._waiting) >= READ_AHEAD and not attempt.stop.is_set():
                attempt.beat()
                self._changed.wait(_POLL_S)
            if not attempt.stop.is_set():
                attempt.count_frame()
                self.captured += 1
                self._waiting.append(prepared)
                self._changed.notify_all()

    def _prepare_live(self, frame: CapturedFrame) -> T | None:
        try:
            prepared = self._prepare(frame)
        except FrameError as error:
            self._refuse(f"{self._label(frame)} was refused: {error}")
            return None
        return prepared

    def _refuse(self, text: str) -> None:
        with self._changed:
            self.refused += 1
            if not self.is_over:
                attempt = self._supervisor.attempt
                is_news, self._told_refusal = attempt is not self._told_refusal, attempt
                detail = f"{text} ({self.refused} so far)"
                self._teller.set(self.state, detail, is_news=is_news)
        self._teller.tell()

    def _label(self, frame: CapturedFrame) -> str:
        name = f" ({frame.file})" if frame.file is not None else ""
        return f"{self.name}, frame {frame.index}{name}"
