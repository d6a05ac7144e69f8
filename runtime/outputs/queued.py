"""An output behind a bounded queue, in a thread of its own: it may fail, and never stops a line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Notice
from patchline.runtime.outputs.base import Output, Tell, sentence_of, surely
from patchline.runtime.outputs.queue_state import QueueState, Worker
from patchline.runtime.outputs.queue_worker import start_worker
from patchline.runtime.outputs.waiting import Item
from patchline.runtime.verdict import JudgedFrame

MOST_ABANDONED = 3
"""So many threads are left behind in stuck calls; each holds its output until the call returns."""


class QueuedOutput:
    """Gives an output its frames and notices from a thread of its own.

    A live line never waits: when the queue is full its oldest frame is dropped, a notice only when
    nothing but notices is left. A line of files waits for room, but no longer than ``patience_s``
    on an output that does not move.

    A failure is told once, and what comes within the pause after it is dropped (frames) or kept
    (notices, as many as the queue holds); the recovery is told too. Whatever is given is either
    ``written``, in order, or counted as dropped.

    Args:
        output: called from the thread only, ``close`` included.
        size: frames and notices that may wait, at least 1. Each frame holds its picture.
        is_lossless: whether the line rather waits than loses a frame; for files.
        clock: for pauses and patience.
        on_failure: told of failures, recoveries and of what was left; from any thread.
        reopen: makes the output anew when a stuck thread is abandoned; see :meth:`restart`.
        patience_s: see above.

    Raises:
        ConfigurationError: ``size`` is less than 1.
    """

    def __init__(
        self,
        output: Output,
        *,
        size: int = 16,
        is_lossless: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        on_failure: Tell = lambda name, sentence: None,
        reopen: Callable[[], Output] | None = None,
        patience_s: float = 30.0,
    ) -> None:
        self._state = QueueState(output.name, size, clock, surely(on_failure))
        self._is_lossless, self._patience_s = is_lossless, patience_s
        self._reopen = reopen
        self._abandoned: list[Worker] = []
        self._state.worker = start_worker(self._state, output)

    @property
    def name(self) -> str:
        """The output's own."""
        return self._state.name

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more: its reader went away, it cannot go on, or closed."""
        return self._state.is_closed

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt failed, or a call does not return; it holds once closed."""
        return self._state.is_failing

    @property
    def failures(self) -> int:
        """Failed calls so far."""
        return self._state.failures

    @property
    def written(self) -> int:
        """Frames and notices that the output took."""
        return self._state.line.written

    @property
    def dropped_frames(self) -> int:
        """Frames that the output was not given, or failed at."""
        return self._state.line.dropped_frames

    @property
    def dropped_notices(self) -> int:
        """Notices likewise."""
        return self._state.line.dropped_notices

    @property
    def depth(self) -> int:
        """Frames and notices that wait."""
        return len(self._state.line)

    @property
    def heartbeat_s(self) -> float:
        """Clock time of the thread's last sign of life; now, where it has nothing to do."""
        busy_since_s = self._state.worker.busy_since_s
        return self._state.clock.monotonic() if busy_since_s is None else busy_since_s

    def write(self, judged: JudgedFrame) -> None:
        """Take one frame; raises nothing."""
        if not getattr(self._state.worker.output, "ignores_frames", False):
            self._give(Item(judged))

    def notify(self, notice: Notice) -> None:
        """Take one notice; raises nothing."""
        self._give(Item(notice))

    def restart(self, reason: str) -> bool:
        """Go on in a new thread while the old one is stuck in a call of the output.

        An output is made for one thread. So the new one gets an output made anew (``reopen``), or
        the same one if that says it ``is_reentrant``. Otherwise nothing is restarted: frames are
        dropped meanwhile, and the old thread goes on when its call returns. What the abandoned
        thread had in hand counts as dropped; it closes an output of its own when it comes back.

        Returns:
            Whether a new thread runs.
        """
        state = self._state
        with state.changed:
            old, in_hand = state.worker, state.worker.in_hand
            if state.closing.is_set() or state.is_closed or in_hand is None:
                return False
            if not self._may_restart(old):
                state.health.is_stuck = True
                state.room.set()
                return False
        try:
            output = old.output if self._reopen is None else self._reopen()
        except Exception as error:  # of a user's factory, too
            state.tell(state.name, f"cannot be opened again: {sentence_of(error)}")
            return False
        with state.changed:
            is_stuck = old.in_hand is in_hand
            if is_stuck:
                self._replace(old, output)
        if is_stuck:
            state.tell(state.name, f"was restarted: {reason}")
        elif output is not old.output:  # its call has returned meanwhile
            with contextlib.suppress(Exception):
                output.close()
        return is_stuck

    def close(self, timeout_s: float = 10.0) -> None:
        """Let the output take what waits, and close it; a second call does nothing.

        Args:
            timeout_s: what is not taken by then is dropped, and told.
        """
        state = self._state
        with state.changed:
            if state.closing.is_set():
                return
            state.closing.set()
            state.changed.notify_all()
            worker = state.worker
        worker.thread.join(timeout_s)
        with state.changed:
            worker.is_abandoned = is_stuck = worker.thread.is_alive()
            state.health.is_stuck |= is_stuck
            left = len(state.line) + (worker.in_hand is not None)
            state.end(worker)
        if is_stuck:
            sentence = f"was not finished within {timeout_s:g} s: {left} records were dropped"
            state.tell(state.name, sentence)

    def _give(self, item: Item) -> None:
        state = self._state
        deadline_s = state.clock.monotonic() + self._patience_s if self._is_lossless else 0.0
        while True:
            with state.changed:
                if not self._must_wait():
                    state.put(item)
                    return
                state.room.clear()
            left_s = deadline_s - state.clock.monotonic()
            if left_s <= 0:
                self._lose_patience()
            else:
                state.clock.wait(state.room, left_s)

    def _must_wait(self) -> bool:
        state = self._state
        if not self._is_lossless or state.is_over or state.health.is_stuck:
            return False
        return state.line.is_full and not state.health.is_pausing

    def _lose_patience(self) -> None:
        state = self._state
        with state.changed:
            state.failures += 1
            state.health.is_stuck = True
            state.health.dropped_before = state.line.dropped
        state.tell(
            state.name,
            f"has not moved for {self._patience_s:g} s; the inspection goes on without it, and "
            "what it misses is counted",
        )

    def _may_restart(self, worker: Worker) -> bool:
        self._abandoned = [w for w in self._abandoned if w.thread.is_alive()]
        is_sound = self._reopen is not None or getattr(worker.output, "is_reentrant", False)
        return is_sound and len(self._abandoned) < MOST_ABANDONED

    def _replace(self, old: Worker, output: Output) -> None:
        state = self._state
        old.is_abandoned = True
        self._abandoned.append(old)
        state.drop_in_hand(old)
        state.health.is_stuck = False
        state.worker = start_worker(state, output)
