"""The thread of a tracker: it gives a backend its calls, until the end or too many failures."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

from patchline.export.tracking.backend import Backend, Opening, Tell
from patchline.export.tracking.waiting import Call, Kind, Waiting

MOST_FAILURES = 3
"""So many calls in a row may fail until the backend is given up."""


class Worker:
    """Opens a backend in a daemon thread, and makes its calls in order.

    Args:
        opening: of the backend.
        tell: of the first failure, of giving up, and of an end that failed.
    """

    def __init__(self, opening: Opening, tell: Tell) -> None:
        self.name = opening.name
        self._open, self._abandon, self._tell_now = opening.open, opening.abandon, tell
        self._waiting = Waiting()
        self._backend: Backend | None = None
        self._in_hand: Call | None = None
        self._has_failed = self._is_left = False
        self._thread = threading.Thread(
            target=self._work, name=f"patchline tracking: {opening.name}", daemon=True
        )
        self._thread.start()

    def give(self, call: Call) -> None:
        """Take a call; never waits."""
        self._waiting.put(call)

    def wait(self, timeout_s: float) -> bool:
        """Whether all is done, after so many seconds at most."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Drop what waits, and tell what was lost; a stuck thread is left behind."""
        in_hand, is_stuck = self._in_hand, self._thread.is_alive()
        self._waiting.close()
        dropped = self._waiting.dropped
        if is_stuck and in_hand is not None:
            dropped[in_hand.kind] += 1
        lost = _listed(dropped)
        if is_stuck:
            self.tell(f"{self.name} was not done in time{lost}. {self._rescue}")
        elif lost:
            self.tell(f"{self.name} did not take all{lost}. {self._rescue}")
        self._is_left = True  # what the thread finds out later is of no use to anybody
        if is_stuck:
            with contextlib.suppress(Exception):
                self._abandon()

    def tell(self, sentence: str) -> None:
        """Tell one sentence, until the thread is left; raises nothing."""
        if not self._is_left:
            with contextlib.suppress(Exception):
                self._tell_now(sentence.strip())

    def tell_failure(self, where: str, error: BaseException) -> None:
        """Tell of the first failure; later ones are of the same kind more often than not."""
        if not self._has_failed:
            self.tell(f"{self.name} failed at {where} ({sentence_of(error)}); the training goes on")
        self._has_failed = True

    @property
    def _rescue(self) -> str:
        return "" if self._backend is None else self._backend.rescue

    def _work(self) -> None:
        try:
            self._backend = self._open()
        except BaseException as error:  # a library's sys.exit must not end this thread in silence
            self._give_up(f"cannot be used ({sentence_of(error)})")
        else:
            self._make_calls(self._backend)
        self._in_hand = None
        self._waiting.close()

    def _make_calls(self, backend: Backend) -> None:
        failures = 0
        while failures < MOST_FAILURES and (call := self._waiting.take()) is not None:
            self._in_hand = call
            try:
                getattr(backend, call.method)(*call.arguments)
                failures = 0
            except BaseException as error:
                failures += 1
                if call.kind == "end":
                    self.tell(
                        f"{self.name} did not end well ({sentence_of(error)}). {self._rescue}"
                    )
                else:
                    self.tell_failure(call.method, error)
            if call.kind == "end":
                return
        if failures == MOST_FAILURES:
            self._give_up(f"is given up: {failures} calls in a row failed")

    def _give_up(self, reason: str) -> None:
        self.tell(f"{self.name} {reason}; the training goes on without it")


def sentence_of(error: BaseException) -> str:
    """The first line of an exception, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _listed(dropped: Counter[Kind]) -> str:
    kinds: dict[Kind, str] = {
        "numbers": "sets of numbers",
        "pictures": "sets of pictures",
        "records": "other records",
    }
    found = [f"{dropped[kind]} {text}" for kind, text in kinds.items() if dropped[kind]]
    return f": dropped {', '.join(found)}" if found else ""
