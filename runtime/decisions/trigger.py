"""``--trigger 3/5``: how many of the latest frames must be anomalous before it is an event."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patchline.runtime.errors import ConfigurationError

LARGEST_WINDOW = 10_000

_TEXT = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*")


@dataclass(frozen=True)
class Trigger:
    """A debounce: an event starts once ``needed`` of the latest ``window`` frames are anomalous.

    It is over once none of the latest ``window`` frames is anomalous.

    Attributes:
        needed: 1 to ``window``.
        window: 1 to 10,000 frames.

    Raises:
        ConfigurationError: outside these ranges.
    """

    needed: int = 1
    window: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= self.window <= LARGEST_WINDOW:
            raise ConfigurationError(
                f"the trigger {self} cannot be: expected N/M with N from 1 to M, and M up to "
                f"{LARGEST_WINDOW}, such as 3/5 for three of the last five frames"
            )

    def __str__(self) -> str:
        return f"{self.needed}/{self.window}"

    @classmethod
    def parse(cls, text: str) -> Trigger:
        """Read ``3/5``.

        Raises:
            ConfigurationError: it is not of that form, or out of range.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ConfigurationError(
                f"{text!r} is no trigger: expected N/M, such as 3/5 for three of the last five "
                "frames"
            )
        return cls(int(found[1]), int(found[2]))


EVERY_FRAME = Trigger(1, 1)
"""Each anomalous frame is an event, or goes on with one."""
