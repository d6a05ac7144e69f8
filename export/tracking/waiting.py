"""What a tracker has not written yet: a bounded queue that loses its oldest numbers first."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["numbers", "pictures", "records", "end"]
"""``records`` are settings, results and models."""

MOST_WAITING: dict[Kind, int] = {"numbers": 1000, "pictures": 16, "records": 100, "end": 1}
"""So many calls of a kind may wait; pictures are held in memory."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a backend's method, to be made later."""

    kind: Kind
    method: str
    arguments: tuple[Any, ...]


class Waiting:
    """Calls in order; where too many of a kind wait, the oldest of that kind is dropped."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._changed = threading.Condition()
        self._held: Counter[Kind] = Counter()
        self._dropped: Counter[Kind] = Counter()
        self._is_closed = False

    @property
    def dropped(self) -> Counter[Kind]:
        """Calls that were never made, by kind."""
        with self._changed:
            return Counter(self._dropped)

    def put(self, call: Call) -> None:
        """Take a call; never waits. Once closed, it is dropped."""
        with self._changed:
            if self._is_closed:
                self._dropped[call.kind] += 1
                return
            if self._held[call.kind] >= MOST_WAITING[call.kind]:
                self._drop_oldest(call.kind)
            self._calls.append(call)
            self._held[call.kind] += 1
            self._changed.notify()

    def take(self) -> Call | None:
        """Wait for the oldest call and take it; ``None`` once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_closed)
            if not self._calls:
                return None
            call = self._calls.popleft()
            self._held[call.kind] -= 1
            return call

    def close(self) -> None:
        """Drop what waits, and whatever comes."""
        with self._changed:
            self._is_closed = True
            self._dropped.update(call.kind for call in self._calls)
            self._calls.clear()
            self._held.clear()
            self._changed.notify_all()

    def _drop_oldest(self, kind: Kind) -> None:
        oldest = next(call for call in self._calls if call.kind == kind)
        self._calls.remove(oldest)
        self._held[kind] -= 1
        self._dropped[kind] += 1
