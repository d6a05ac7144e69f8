"""What a line and the thread of an output share: the queue, and where the output stands."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from patchline.runtime.clock import Clock
from patchline.runtime.errors import WriteError
from patchline.runtime.outputs.base import Output, Tell
from patchline.runtime.outputs.waiting import Item, WaitingLine

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""After a failure an output is tried again so much later, doubling."""

_TRIES = 3  # of a notice that raises something unforeseen: it may be the notice itself


@dataclass(eq=False)
class Worker:
    """One thread with the output it serves; another one takes its place when it is abandoned."""

    output: Output
    is_abandoned: bool = False
    busy_since_s: float | None = None
    in_hand: Item | None = None
    thread: threading.Thread = field(init=False)


@dataclass
class Health:
    """Where an output stands between working and failing."""

    is_failing: bool = False  # the latest attempt of its kind failed
    is_at_frames: bool = False  # that kind is frames, not notices
    is_pausing: bool = False  # and the next one is to come
    is_stuck: bool = False  # a call does not return
    pause_s: float = FIRST_PAUSE_S
    dropped_before: int = 0


class QueueState:
    """Its methods need the lock, that of ``changed``.

    Args:
        name: of the output.
        size: of the queue.
        clock: for pauses.
        tell: never raises; to be called without the lock.

    Attributes:
        line: what waits.
        changed: notified when something comes, and when it closes.
        room: set when something was taken, or will never be.
        closing: set when nothing more is to come.
        is_closed: whether nothing is taken any more.
        failures: failed calls so far.
        health: see there.
        worker: the thread that is in charge.

    Raises:
        ConfigurationError: no room for a single item.
    """

    worker: Worker

    def __init__(self, name: str, size: int, clock: Clock, tell: Tell) -> None:
        self.name, self.clock, self.tell = name, clock, tell
        self.line = WaitingLine(size)
        self.changed = threading.Condition()
        self.room, self.closing = threading.Event(), threading.Event()
        self.is_closed = False
        self.failures = 0
        self.health = Health()

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt failed, or a call does not return; it holds once closed."""
        return self.health.is_failing or self.health.is_stuck

    @property
    def is_over(self) -> bool:
        """Whether nothing is taken from the line any more."""
        return self.is_closed or self.closing.is_set()

    def put(self, item: Item) -> None:
        """Let an item wait, or refuse it where that is of no use."""
        if self.is_over or (self.health.is_pausing and item.is_frame):
            self.line.refuse(item)
            return
        self.line.put(item)
        self.changed.notify_all()

    def take(self, worker: Worker) -> Item | None:
        """The next item, once there is one; ``None`` when the worker is to end."""
        while not (len(self.line) or self.closing.is_set() or worker.is_abandoned):
            if self.is_closed:
                return None
            self.changed.wait()
        if worker.is_abandoned or self.is_closed or not len(self.line):
            return None
        worker.in_hand = self.line.take()
        worker.busy_since_s = self.clock.monotonic()
        self.room.set()
        return worker.in_hand

    def succeed(self, worker: Worker, item: Item) -> bool:
        """The item in hand was taken; whether that ends a bout of failures.

        An event that an output of pictures has no use for does not: only what failed can.
        """
        self.line.written += 1
        worker.in_hand = worker.busy_since_s = None
        if self.health.is_failing and self.health.is_at_frames != item.is_frame:
            self.health.is_stuck = False
            return False
        was_failing = self.is_failing
        self.health = Health()
        return was_failing

    def fail(self, worker: Worker, item: Item, error: BaseException) -> float:
        """The item in hand was not taken; the pause until the next attempt, in seconds."""
        pause_s = self._begin_pause(is_at_frames=item.is_frame)
        self.line.drop_frames()
        item.tries += 1
        is_hopeless = not isinstance(error, WriteError) and item.tries >= _TRIES
        if item.is_frame or is_hopeless or self.closing.is_set():
            self.line.refuse(item)
        else:
            self.line.put_back(item)
        worker.in_hand = worker.busy_since_s = None
        self.room.set()
        return pause_s

    def end(self, worker: Worker) -> None:
        """Nothing will be taken any more; what waits is dropped."""
        self.drop_in_hand(worker)
        self.line.drop_all()
        self.is_closed = True
        self.room.set()

    def count_failure(self) -> None:
        """A call failed."""
        self.failures += 1
        self.health.is_failing = True

    def drop_in_hand(self, worker: Worker) -> None:
        """Give up what a worker does not come back with."""
        if worker.in_hand is not None:
            self.line.refuse(worker.in_hand)
        worker.in_hand = worker.busy_since_s = None

    def _begin_pause(self, *, is_at_frames: bool) -> float:
        before = self.health
        self.failures += 1
        dropped = before.dropped_before if before.is_failing else self.line.dropped
        longer_s = min(2 * before.pause_s, LONGEST_PAUSE_S)
        self.health = Health(True, is_at_frames, True, False, longer_s, dropped)
        return before.pause_s
