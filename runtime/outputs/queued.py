"""An output behind a bounded queue, in a thread of its own: it may fail, and never stops a line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import WriteError
from patchline.runtime.outputs.base import (
    Output,
    OutputClosedError,
    OutputEndedError,
    Tell,
    sentence_of,
    surely,
)
from patchline.runtime.outputs.waiting import Item, WaitingLine
from patchline.runtime.verdict import JudgedFrame

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""After a failure an output is tried again so much later, doubling."""

MOST_ABANDONED = 3
"""So many threads are left behind in stuck calls; each holds its output until the call returns."""

_TRIES = 3  # of a notice that raises something unforeseen: it may be the notice itself


@dataclass(eq=False)
class _Worker:
    """One thread with the output it serves; another one takes its place when it is abandoned."""

    output: Output
    is_abandoned: bool = False
    busy_since_s: float | None = None
    in_hand: Item | None = None
    thread: threading.Thread = field(init=False)


@dataclass
class _Health:
    """Where an output stands between working and failing."""

    is_failing: bool = False  # the latest attempt failed
    is_pausing: bool = False  # and the next one is to come
    is_stuck: bool = False  # a call does not return
    pause_s: float = FIRST_PAUSE_S
    dropped_before: int = 0


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

    Attributes:
        failures: failed calls so far.

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
        self.failures = 0
        self._name = output.name
        self._line = WaitingLine(size)
        self._is_lossless = is_lossless
        self._clock = clock
        self._tell = surely(on_failure)
        self._reopen = reopen
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._room = threading.Event()
        self._closing = threading.Event()
        self._is_closed = False
        self._health = _Health()
        self._abandoned: list[_Worker] = []
        self._worker = self._start(output)

    @property
    def name(self) -> str:
        """The output's own."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more: its reader went away, it cannot go on, or closed."""
        return self._is_closed

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt failed, or a call does not return."""
        return self._health.is_failing or self._health.is_stuck

    @property
    def written(self) -> int:
        """Frames and notices that the output took."""
        return self._line.written

    @property
    def dropped_frames(self) -> int:
        """Frames that the output was not given, or failed at."""
        return self._line.dropped_frames

    @property
    def dropped_notices(self) -> int:
        """Notices likewise."""
        return self._line.dropped_notices

    @property
    def depth(self) -> int:
        """Frames and notices that wait."""
        return len(self._line)

    @property
    def heartbeat_s(self) -> float:
        """Clock time of the thread's last sign of life; now, where it has nothing to do."""
        busy_since_s = self._worker.busy_since_s
        return self._clock.monotonic() if busy_since_s is None else busy_since_s

    def write(self, judged: JudgedFrame) -> None:
        """Take one frame; raises nothing."""
        if not getattr(self._worker.output, "ignores_frames", False):
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
        with self._changed:
            old = self._worker
            if self._closing.is_set() or self._is_closed or old.busy_since_s is None:
                return False
            if not self._may_restart(old):
                self._health.is_stuck = True
                self._room.set()
                return False
        try:
            output = old.output if self._reopen is None else self._reopen()
        except Exception as error:  # of a user's factory, too
            self._tell(self._name, f"cannot be opened again: {sentence_of(error)}")
            return False
        with self._changed:
            old.is_abandoned = True
            self._abandoned.append(old)
            self._drop_in_hand(old)
            self._health.is_stuck = False
            self._worker = self._start(output)
        self._tell(self._name, f"was restarted: {reason}")
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Let the output take what waits, and close it; a second call does nothing.

        Args:
            timeout_s: what is not taken by then is dropped, and told.
        """
        with self._changed:
            if self._closing.is_set():
                return
            self._closing.set()
            self._changed.notify_all()
            worker = self._worker
        worker.thread.join(timeout_s)
        with self._changed:
            worker.is_abandoned = is_stuck = worker.thread.is_alive()
            left = len(self._line) + (worker.in_hand is not None)
            self._line.drop_all()
            self._drop_in_hand(worker)
            self._is_closed = True
            self._room.set()
        if is_stuck:
            self._tell(
                self._name, f"was not finished within {timeout_s:g} s: {left} records were dropped"
            )

    def _give(self, item: Item) -> None:
        deadline_s = self._clock.monotonic() + self._patience_s if self._is_lossless else 0.0
        while True:
            with self._changed:
                if not self._must_wait(item):
                    self._put(item)
                    return
                self._room.clear()
            left_s = deadline_s - self._clock.monotonic()
            if left_s <= 0:
                self._lose_patience()
            else:
                self._clock.wait(self._room, left_s)

    def _must_wait(self, item: Item) -> bool:
        is_over = self._is_closed or self._closing.is_set() or self._health.is_stuck
        if not self._is_lossless or is_over:
            return False
        return self._line.is_full and not self._health.is_pausing

    def _put(self, item: Item) -> None:
        is_over = self._is_closed or self._closing.is_set()
        if is_over or (self._health.is_pausing and item.is_frame):
            self._line.refuse(item)
            return
        self._line.put(item)
        self._changed.notify_all()

    def _lose_patience(self) -> None:
        with self._changed:
            self.failures += 1
            self._health.is_stuck = True
            self._health.dropped_before = self._line.dropped
        self._tell(
            self._name,
            f"has not moved for {self._patience_s:g} s; the inspection goes on without it, and "
            "what it misses is counted",
        )

    def _may_restart(self, worker: _Worker) -> bool:
        self._abandoned = [w for w in self._abandoned if w.thread.is_alive()]
        is_sound = self._reopen is not None or getattr(worker.output, "is_reentrant", False)
        return is_sound and len(self._abandoned) < MOST_ABANDONED

    def _start(self, output: Output) -> _Worker:
        worker = _Worker(output)
        worker.thread = threading.Thread(
            target=self._serve, args=(worker,), name=f"output {self._name}", daemon=True
        )
        worker.thread.start()
        return worker

    def _serve(self, worker: _Worker) -> None:
        while (item := self._take(worker)) is not None:
            self._attempt(worker, item)
        self._finish(worker)

    def _attempt(self, worker: _Worker, item: Item) -> None:
        try:
            _hand_over(worker.output, item)
        except OutputClosedError:
            self._end(worker, None)
        except OutputEndedError as error:
            self._end(worker, error)
        except Exception as error:  # of a user's output, too: it must not end the line
            self._fail(worker, item, error)
        else:
            self._succeed(worker)

    def _take(self, worker: _Worker) -> Item | None:
        with self._changed:
            while not (len(self._line) or self._closing.is_set() or worker.is_abandoned):
                if self._is_closed:
                    return None
                self._changed.wait()
            if worker.is_abandoned or self._is_closed or not len(self._line):
                return None
            worker.in_hand = self._line.take()
            worker.busy_since_s = self._clock.monotonic()
            self._room.set()
            return worker.in_hand

    def _succeed(self, worker: _Worker) -> None:
        with self._changed:
            if worker.is_abandoned:
                return
            was_failing = self.is_failing
            lost = self._line.dropped - self._health.dropped_before
            self._line.written += 1
            self._health = _Health()
            worker.in_hand = worker.busy_since_s = None
        if was_failing:
            self._tell(self._name, f"works again; {lost} records were dropped meanwhile")

    def _fail(self, worker: _Worker, item: Item, error: Exception) -> None:
        with self._changed:
            if worker.is_abandoned:
                return
            is_new = not self._health.is_failing
            pause_s = self._begin_pause(is_new)
            self._line.drop_frames()
            self._put_back(item, error)
            worker.in_hand = worker.busy_since_s = None
            self._room.set()
        if is_new:
            self._tell(
                self._name, f"{sentence_of(error)}. Frames are dropped, and it is tried again"
            )
        self._clock.wait(self._closing, pause_s)
        with self._changed:
            self._health.is_pausing = False

    def _begin_pause(self, is_new: bool) -> float:
        self.failures += 1
        dropped = self._line.dropped if is_new else self._health.dropped_before
        pause_s = self._health.pause_s
        longer_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._health = _Health(True, True, False, longer_s, dropped)
        return pause_s

    def _put_back(self, item: Item, error: Exception) -> None:
        item.tries += 1
        is_hopeless = not isinstance(error, WriteError) and item.tries >= _TRIES
        if item.is_frame or is_hopeless or self._closing.is_set():
            self._line.refuse(item)
        else:
            self._line.put_back(item)

    def _end(self, worker: _Worker, error: OutputEndedError | None) -> None:
        with self._changed:
            if worker.is_abandoned:
                return
            self.failures += error is not None
            self._drop_in_hand(worker)
            self._line.drop_all()
            self._is_closed = True
            self._room.set()
        if error is not None:
            self._tell(self._name, f"{error}. It is not tried again")

    def _finish(self, worker: _Worker) -> None:
        in_charge = self._worker
        if in_charge is not worker and in_charge.output is worker.output:
            return  # the one that took its place closes it
        try:
            worker.output.close()
        except Exception as error:
            if not worker.is_abandoned:
                self.failures += 1
                self._tell(self._name, sentence_of(error))

    def _drop_in_hand(self, worker: _Worker) -> None:
        if worker.in_hand is not None:
            self._line.refuse(worker.in_hand)
        worker.in_hand = worker.busy_since_s = None


def _hand_over(output: Output, item: Item) -> None:
    if isinstance(item.content, JudgedFrame):
        output.write(item.content)
    else:
        output.notify(item.content)
