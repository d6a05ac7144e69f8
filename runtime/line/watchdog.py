"""Restarts a wedged stage of the line, within a budget, and says when that does not help."""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from patchline.runtime.clock import SYSTEM_CLOCK, Clock

OnWedged = Callable[[str, str], None]
"""Told once, with the stage's name and a sentence, when a stage is wedged for good."""

_JOIN_S = 2.0
_LATE_ROUNDS = 10
_LOG = logging.getLogger(__name__)


class Heartbeat:
    """The sign of life of a stage that works on call: only work can last too long, idling cannot.

    Args:
        clock: the one that the watchdog has.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._since_s: float | None = None

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Around each piece of work, from one thread."""
        self._since_s = self._clock.monotonic()
        try:
            yield
        finally:
            self._since_s = None

    def __call__(self) -> float:
        """When the work in hand began; now while there is none."""
        since_s = self._since_s
        return self._clock.monotonic() if since_s is None else since_s


@dataclass
class _Stage:
    name: str
    heartbeat: Callable[[], float]
    limit_s: float
    restart: Callable[[str], object] | None
    fresh_s: float  # it is not late before fresh_s + limit_s, whatever its heartbeat says
    beat_s: float = -math.inf
    restarts_s: collections.deque[float] = field(default_factory=collections.deque)
    is_wedged: bool = False


class Watchdog:
    """Looks at every stage once a second, in a thread of its own.

    Args:
        on_wedged: told of a stage that cannot be restarted, or not again; from the watchdog's
            thread. Told again only if the stage came back to life in between.
        budget: restarts of each stage within ``within_s``.
        within_s: see there.
        every_s: time between two looks.
        clock: the one that the heartbeats are read from.
    """

    def __init__(
        self,
        on_wedged: OnWedged,
        *,
        budget: int = 5,
        within_s: float = 3600.0,
        every_s: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._on_wedged = on_wedged
        self._budget, self._within_s, self._every_s = budget, within_s, every_s
        self._clock = clock
        self._stages: list[_Stage] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._looked_s = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def healthy(self) -> bool:
        """Whether no stage is wedged for good, and the watchdog itself looks at them."""
        if any(stage.is_wedged for stage in list(self._stages)):
            return False
        return self._clock.monotonic() - self._looked_s <= _LATE_ROUNDS * self._every_s

    def register(
        self,
        name: str,
        heartbeat: Callable[[], float],
        limit_s: float,
        restart: Callable[[str], object] | None = None,
    ) -> None:
        """Watch a stage.

        Args:
            name: for messages.
            heartbeat: clock time of its last sign of life; must not block.
            limit_s: seconds after that at which it counts as wedged.
            restart: told why, makes it work again, and does not block; ``None`` if there is no
                way to, as with an engine that hangs in a native call.
        """
        stage = _Stage(name, heartbeat, limit_s, restart, self._clock.monotonic())
        with self._lock:
            self._stages = [*self._stages, stage]

    def unregister(self, name: str) -> None:
        """Watch a stage no longer: it has ended as it should."""
        with self._lock:
            self._stages = [stage for stage in self._stages if stage.name != name]

    def start(self) -> None:
        """Begin to look."""
        self._looked_s = self._clock.monotonic()
        self._thread.start()

    def close(self) -> None:
        """Look no longer. A second call does nothing."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def check(self) -> None:
        """Look at all stages once."""
        now_s = self._clock.monotonic()
        if now_s - self._looked_s > _LATE_ROUNDS * self._every_s:
            # Nobody ran, this thread neither: a process that was stopped, a machine that slept.
            for stage in self._stages:
                stage.fresh_s = now_s
        for stage in self._stages:
            self._look_at(stage, now_s)
        self._looked_s = now_s

    def _run(self) -> None:
        while not self._clock.wait(self._stop, self._every_s):
            self.check()

    def _look_at(self, stage: _Stage, now_s: float) -> None:
        try:
            self._judge(stage, now_s)
        except Exception:  # one stage's hook must not leave the others unwatched
            _LOG.exception("the watchdog's look at %s failed", stage.name)

    def _judge(self, stage: _Stage, now_s: float) -> None:
        try:
            stage.beat_s = stage.heartbeat()
        except Exception:  # it cannot say so, so it is not known to live
            _LOG.debug("%s gives no heartbeat", stage.name, exc_info=True)
        silent_s = now_s - max(stage.beat_s, stage.fresh_s)
        if silent_s <= stage.limit_s:
            stage.is_wedged = False
        elif not stage.is_wedged:
            self._act(stage, now_s, f"{stage.name} gave no sign of life for {silent_s:.0f} s")

    def _act(self, stage: _Stage, now_s: float, reason: str) -> None:
        while stage.restarts_s and now_s - stage.restarts_s[0] > self._within_s:
            stage.restarts_s.popleft()
        if stage.restart is None:
            self._give_up(
                stage, f"{reason}, and cannot be restarted by itself: the process must be"
            )
        elif len(stage.restarts_s) >= self._budget:
            count, minutes = len(stage.restarts_s), self._within_s / 60
            self._give_up(
                stage,
                f"{reason}, after {count} restarts within {minutes:g} minutes: the process must be "
                "restarted",
            )
        else:
            stage.restarts_s.append(now_s)
            stage.fresh_s = now_s
            _LOG.warning("%s; it is restarted", reason)
            stage.restart(reason)

    def _give_up(self, stage: _Stage, sentence: str) -> None:
        stage.is_wedged = True
        _LOG.error("%s", sentence)
        self._on_wedged(stage.name, sentence)
