"""A look at the cluster while a round of an archive runs (issue 9).

Ray Data waits without end for an engine that no node has room for any more. What ends that wait is
what Ctrl-C does to it: there is no other way into it from outside.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from patchline.runtime.errors import ClusterError

LOOK_S = 30.0
"""From one look to the next."""

PATIENCE_S = 300.0
"""How long a node that has room may stay away: one that starts again takes minutes."""

T = TypeVar("T")


class _NoRoomError(KeyboardInterrupt):
    """Ends a wait as Ctrl-C would."""


def while_there_is_room(
    rows: Iterable[T],
    room: Callable[[], object],
    *,
    look_s: float = LOOK_S,
    patience_s: float = PATIENCE_S,
) -> Iterator[T]:
    """Give what an iterable gives, and end the wait for more where the room stays away.

    Args:
        rows: may wait without end.
        room: raises a ClusterError where there is none.
        look_s: seconds from one look to the next.
        patience_s: seconds without room after which the wait ends.

    Raises:
        ClusterError: what ``room`` says, and for how long.
        RuntimeError: this is not the main thread, the only one that a signal reaches.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("an archive is scored on a cluster in the main thread")
    watch = _Watch(room, look_s, max(1, round(patience_s / look_s)))
    with watch.running():
        waiting = iter(rows)
        while True:
            try:
                with watch.waiting():
                    row = next(waiting, watch)
            except _NoRoomError:
                waited = f"for {patience_s / 60:.0f} minutes {watch.problem}"
                raise ClusterError(f"{waited}. The same call goes on from here") from None
            if isinstance(row, _Watch):
                return
            yield row


class _Watch:
    def __init__(self, room: Callable[[], object], look_s: float, most_misses: int) -> None:
        self._room, self._look_s, self._most_misses = room, look_s, most_misses
        self._over, self._lock, self._is_waiting = threading.Event(), threading.Lock(), False
        self.problem = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)

        def interrupted(number: int, frame: object) -> None:
            if self.problem:
                raise _NoRoomError
            if callable(before):
                before(number, frame)  # type: ignore[arg-type]

        looking = threading.Thread(target=self._look, daemon=True)
        signal.signal(signal.SIGINT, interrupted)
        looking.start()
        try:
            yield
        finally:
            self._over.set()
            signal.signal(signal.SIGINT, before)
            looking.join(self._look_s)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The only time at which a signal of ours may come."""
        with self._lock:
            self._is_waiting = True
        try:
            yield
        finally:
            with self._lock:
                self._is_waiting = False

    def _look(self) -> None:
        misses = 0
        while not self._over.wait(self._look_s):
            try:
                self._room()
            except ClusterError as error:
                problem = str(error)
            except Exception as error:
                # Ray itself tells of a cluster that is gone, in most cases long before this. A
                # look that fails for good must not turn the end of the wait off.
                problem = f"the cluster could not be looked at ({type(error).__name__}: {error})"
            else:
                misses = 0
                continue
            misses += 1
            if misses >= self._most_misses and self._interrupt(problem):
                return

    def _interrupt(self, problem: str) -> bool:
        with self._lock:
            if not self._is_waiting:
                return False
            self.problem = problem
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)
            return True
