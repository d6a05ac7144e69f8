"""How long a lost camera is waited for: limits, and a back-off with jitter (DESIGN section 7)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields

from patchline.runtime.errors import ConfigurationError


@dataclass(frozen=True)
class ReconnectLimits:
    """When a camera counts as stalled or lost, and how it is opened again.

    Attributes:
        attempts: so many reopenings in a row may fail, then the camera has failed; 0 for none at
            all, ``None`` for ever.
        stall_s: without a frame for so long it is stalled. A camera whose period is long is given
            three periods at least.
        lost_s: without a frame for so long it is given up and opened again; longer than
            ``stall_s``, and better longer than the source's own time-outs (10 s), which leave no
            thread behind.
        open_s: likewise while it is being opened.
        stable_s: frames must come for so long before the back-off starts from the beginning.
        first_delay_s: the first wait is at most this long; each further one twice as long.
        most_delay_s: and never longer than this.
        most_wedged: so many threads that never came back are left behind, not more.

    Raises:
        ConfigurationError: a value outside its range.
    """

    attempts: int | None = None
    stall_s: float = 5.0
    lost_s: float = 15.0
    open_s: float = 30.0
    stable_s: float = 10.0
    first_delay_s: float = 0.5
    most_delay_s: float = 30.0
    most_wedged: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s") and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{field.name} is {value}, expected seconds above 0")
        for name in ("attempts", "most_wedged"):
            count = getattr(self, name)
            if count is not None and count < 0:
                raise ConfigurationError(f"{name} is {count}, expected 0 or more")
        _require_order("stall_s", self.stall_s, "lost_s", self.lost_s)
        _require_order("first_delay_s", self.first_delay_s, "most_delay_s", self.most_delay_s)


class BackOff:
    """Waits between attempts: doubling, capped, the upper half of each of them random.

    The random half keeps the cameras of a hall from coming back to their switch all at once after
    a power cut; the fixed half keeps any of them from coming back at once.

    Args:
        limits: first and longest wait.
        rng: gives the jitter.

    Attributes:
        failures: attempts that failed in a row.
    """

    def __init__(self, limits: ReconnectLimits, rng: random.Random) -> None:
        self.failures = 0
        self._limits = limits
        self._rng = rng
        self._cap_s = limits.first_delay_s

    def next_s(self) -> float:
        """Count a failure; seconds to wait after it, from half the cap to the cap."""
        self.failures += 1
        cap_s, self._cap_s = self._cap_s, min(2 * self._cap_s, self._limits.most_delay_s)
        return cap_s * (0.5 + 0.5 * self._rng.random())

    def reset(self) -> None:
        """Start from the beginning: it worked."""
        self.failures = 0
        self._cap_s = self._limits.first_delay_s


def _require_order(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ConfigurationError(
            f"{low_name} is {low:g} and {high_name} {high:g}, expected {low_name} <= {high_name}"
        )
