"""One number in so many steps: what comes between is left out, but never the last one."""

from __future__ import annotations

from collections.abc import Mapping

METRICS = "metrics/"
"""Names below it are results of an evaluation; each is kept."""


class Thinning:
    """Keeps a number once in ``log_every`` steps, each name for itself.

    A name's first number is kept, whatever its step; so a number that comes only once is not lost.

    Args:
        log_every: steps between two numbers of a name, at least 1.
    """

    def __init__(self, log_every: int) -> None:
        self._log_every = log_every
        self._kept_at: dict[str, int] = {}
        self._left_out: dict[str, tuple[float, int]] = {}

    def keep(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """The numbers of this step that are kept."""
        kept = {name: float(value) for name, value in values.items() if self._is_due(name, step)}
        for name, value in values.items():
            if name in kept:
                self._kept_at[name] = step
                self._left_out.pop(name, None)
            else:
                self._left_out[name] = (float(value), step)
        return kept

    def rest(self) -> list[tuple[int, dict[str, float]]]:
        """The last number of each name, where it was left out, by ascending step."""
        by_step: dict[int, dict[str, float]] = {}
        for name, (value, step) in self._left_out.items():
            by_step.setdefault(step, {})[name] = value
        self._left_out.clear()
        return sorted(by_step.items())

    def _is_due(self, name: str, step: int) -> bool:
        if name.startswith(METRICS) or name not in self._kept_at:
            return True
        # A step that went back belongs to a training that was taken up again.
        passed = step - self._kept_at[name]
        return passed < 0 or passed >= self._log_every
