"""Decides when a camera is stalled, lost or over, and opens it again (DESIGN section 7)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from patchline.runtime.camera.attempt import Attempt
from patchline.runtime.camera.backoff import BackOff, ReconnectLimits
from patchline.runtime.camera.states import StreamState
from patchline.runtime.camera.teller import StateTeller
from patchline.runtime.clock import Clock
from patchline.runtime.errors import (
    ConfigurationError,
    MissingExtraError,
    PatchlineError,
    SourceError,
)

_FINAL = (ConfigurationError, MissingExtraError)
"""Waiting does not help against these."""

_SLOW_PERIODS = 3


class Supervisor:
    """The state machine of one camera or file; all its methods need the camera's lock.

    Args:
        name: of the camera.
        make_attempt: a new opening of the source, not yet started.
        teller: keeps the state.
        is_live: whether it is opened again when it is lost.
        may_end: whether a camera that ends without an error has ended.
        limits: see there.
        clock: the time.
        rng: for the jitter of the back-off.

    Attributes:
        attempt: the opening that frames come from; ``None`` while the next one is waited for.
        error: why the camera failed, once it has.
        needs_restart: whether only a new process can open it again.
        reopenings: how often frames came again after the camera had been lost.
        skipped_before: unreadable pictures of earlier openings.
    """

    def __init__(
        self,
        name: str,
        make_attempt: Callable[[], Attempt],
        teller: StateTeller,
        *,
        is_live: bool,
        may_end: bool,
        limits: ReconnectLimits,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.attempt: Attempt | None = None
        self.error: BaseException | None = None
        self.needs_restart = False
        self.reopenings = self.skipped_before = 0
        self._name, self._make_attempt, self._teller = name, make_attempt, teller
        self._is_live, self._may_end = is_live, may_end
        self._limits, self._clock = limits, clock
        self._back_off = BackOff(limits, rng)
        self._wedged: list[Attempt] = []
        self._retry_s = math.inf
        self._seen = 0  # frames of this attempt that the state knows of
        self._lost_at_s: float | None = None

    def begin(self) -> None:
        """Open the source in a new thread."""
        self._seen = 0
        self.attempt = self._make_attempt()
        self.attempt.start()

    def check(self, *, has_waiting: bool) -> None:
        """Look at the attempt and at the time; ``has_waiting`` frames come before an end."""
        attempt = self.attempt
        if attempt is None:
            if self._clock.monotonic() >= self._retry_s:
                self.begin()
            return
        if attempt.frames > self._seen:
            self._seen = attempt.frames
            self._see_frames()
        if not attempt.is_done:
            if self._is_live:
                self._check_silence(attempt)
        elif not has_waiting:
            self._end(attempt)

    def abandon(self, attempt: Attempt, reason: str) -> None:
        """Give a wedged thread up; past the limit of them the camera has failed."""
        attempt.stop.set()
        self._wedged = [each for each in [*self._wedged, attempt] if each.is_alive]
        if len(self._wedged) > self._limits.most_wedged:
            self.needs_restart = True
            self._fail(
                SourceError(
                    f"{self._name}: {reason}. {len(self._wedged)} of its capture threads hang in "
                    "calls that do not return, so it is not opened again: restart the process"
                )
            )
        else:
            self._lose(attempt, SourceError(f"{self._name}: {reason}"))

    def good_until_s(self, attempt: Attempt) -> float:
        """Clock time up to which a thread's silence is nothing unusual."""
        if not attempt.is_open:
            return attempt.beat_s + self._limits.open_s
        return attempt.beat_s + self._patience_s(attempt)[1]

    def _patience_s(self, attempt: Attempt) -> tuple[float, float]:
        """Silence after which it is stalled, and lost; a slow camera gets more."""
        stall_s = max(self._limits.stall_s, _SLOW_PERIODS / attempt.fps if attempt.fps else 0.0)
        return stall_s, stall_s + self._limits.lost_s - self._limits.stall_s

    def _see_frames(self) -> None:
        if self._teller.state is StreamState.RUNNING:
            return
        detail = ""
        if self._lost_at_s is not None:
            self.reopenings += 1
            away_s = self._clock.monotonic() - self._lost_at_s
            detail, self._lost_at_s = f"frames come again after {away_s:.1f} s", None
        self._teller.set(StreamState.RUNNING, detail)

    def _check_silence(self, attempt: Attempt) -> None:
        silent_s = self._clock.monotonic() - attempt.beat_s
        if not attempt.is_open:
            if silent_s > self._limits.open_s:
                self.abandon(attempt, f"its opening did not return within {silent_s:.1f} s")
            return
        stall_s, lost_s = self._patience_s(attempt)
        if silent_s > lost_s:
            self.abandon(attempt, f"no frame came for {silent_s:.1f} s")
        elif silent_s > stall_s:
            self._teller.set(StreamState.STALLED, f"no frame for {silent_s:.1f} s")

    def _end(self, attempt: Attempt) -> None:
        error = attempt.error
        if error is None and (not self._is_live or self._may_end):
            self._teller.set(StreamState.ENDED)
        elif error is None:
            self._lose(attempt, SourceError(f"{self._name}: the stream ended"))
        elif not self._is_live or isinstance(error, _FINAL) or not isinstance(error, Exception):
            self._fail(error)
        else:
            self._lose(attempt, error)

    def _lose(self, attempt: Attempt, error: Exception) -> None:
        now_s = self._clock.monotonic()
        if attempt.ran_s >= self._limits.stable_s:
            self._back_off.reset()
        delay_s = self._back_off.next_s()
        attempts = self._limits.attempts
        if attempts is not None and self._back_off.failures > attempts:
            self._fail(error, f"; it was opened again {attempts} times in a row" * bool(attempts))
            return
        self.skipped_before += attempt.skipped_unreadable
        self.attempt, self._retry_s = None, now_s + delay_s
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        number = self._back_off.failures
        detail = f"{_sentence(error)}; attempt {number} to open it again in {delay_s:.1f} s"
        self._teller.set(StreamState.RECONNECTING, detail)

    def _fail(self, error: BaseException, more: str = "") -> None:
        self.error = error
        self._teller.set(StreamState.FAILED, f"{_sentence(error)}{more}")


def _sentence(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, PatchlineError):
        return text
    # A library's message may hold the address with its password.
    is_safe = text and "@" not in text and "://" not in text
    return f"{type(error).__name__}: {text}" if is_safe else type(error).__name__
