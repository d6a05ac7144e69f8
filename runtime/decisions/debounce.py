"""Counts anomalous frames among the latest ones: when something starts, and when it is over."""

from __future__ import annotations

from patchline.runtime.decisions.event import Phase
from patchline.runtime.decisions.trigger import LARGEST_WINDOW, Trigger


class Debounce:
    """``N/M``: started by N of the latest M frames, over once none of the latest M is anomalous.

    Once none of them is, all that was before is forgotten, and frames are counted anew. The
    trigger may be changed at any time; the latest frames are kept and count by the new one.

    Args:
        trigger: N and M.

    Attributes:
        is_active: whether it was started and is not over.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.is_active = False
        self._trigger = trigger
        self._latest = bytearray(LARGEST_WINDOW)  # a ring: 1 is an anomalous frame
        self._first = self._next = 0  # frames that count: from the first up to the next one
        self._anomalous = 0

    @property
    def trigger(self) -> Trigger:
        """N and M; may be set."""
        return self._trigger

    @trigger.setter
    def trigger(self, trigger: Trigger) -> None:
        self._trigger = trigger
        oldest = max(self._first, self._next - trigger.window)
        self._anomalous = sum(self._at(frame) for frame in range(oldest, self._next))
        if self.is_quiet and not self.is_active:
            self.reset()

    @property
    def is_quiet(self) -> bool:
        """Whether none of the latest frames is anomalous."""
        return self._anomalous == 0

    def feed(self, anomalous: bool) -> Phase | None:
        """Count a frame.

        Returns:
            ``STARTED`` or ``ENDED`` if it is with this frame; ``None`` if nothing changes.
        """
        self._anomalous += anomalous - self._at(self._next - self._trigger.window)
        self._latest[self._next % LARGEST_WINDOW] = anomalous
        self._next += 1
        was_active = self.is_active
        if self.is_quiet:
            self.reset()
            return Phase.ENDED if was_active else None
        self.is_active = was_active or self._anomalous >= self._trigger.needed
        return Phase.STARTED if self.is_active and not was_active else None

    def reset(self) -> None:
        """Forget all frames; what was started is over without a word."""
        self.is_active = False
        self._first, self._anomalous = self._next, 0

    def _at(self, frame: int) -> int:
        return self._latest[frame % LARGEST_WINDOW] if frame >= self._first else 0
