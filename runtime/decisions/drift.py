"""Drift: whether the line's scores have moved away from those that the model calls normal.

The measure is the common-language effect size of Mann and Whitney (1947; McGraw and Wong 1992):
A = P(score of the line > normal score) + P(equal) / 2. It is 0.5 where both follow one law, 1
where every frame of the line scores higher than every normal picture, and takes no assumption
about the law. It is an effect size and no p-value on purpose: frames of a standing line are not
independent, so that any test turns significant sooner or later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from patchline.runtime.contract import NormalScores
from patchline.runtime.decisions.event import Phase
from patchline.runtime.errors import ConfigurationError

DEFAULT_WINDOW = 200
LEAST_WINDOW, LARGEST_WINDOW = 100, 100_000
LEAST_NORMAL_SCORES = 20
"""With fewer, chance alone moves the measure too far; see docs/decisions.md for the figures."""

STARTS_AT = 0.9
"""Drift starts at this measure or above, and at 1 less it or below."""
ENDS_WITHIN = 0.25
"""Drift ends once the measure is within this of 0.5."""

_EXPECTED = 0.5
_HIGHER = "higher than", "a dirty lens, another light, a covered or empty view, or another product"
_LOWER = "lower than", "a belt that stands still, or parts that the model was fitted on"


class Drift:
    """Compares the latest scores of one camera with the model's normal scores.

    It is decided once ``window`` scores were seen, and from then on at each of them.

    Args:
        normal_scores: of good pictures that the model has not seen; at least 20.
        window: how many of the latest scores are compared; 100 to 100,000.
        watches_lower: whether lower scores are a drift as well; not so with a mask, within which
            scores are lower than those of whole pictures by nature.

    Attributes:
        is_drifting: whether a drift goes on.

    Raises:
        ConfigurationError: too few normal scores, or another window.
    """

    def __init__(
        self,
        normal_scores: Sequence[float],
        window: int = DEFAULT_WINDOW,
        *,
        watches_lower: bool = True,
    ) -> None:
        if (reason := why_no_drift(len(normal_scores))) is not None:
            raise ConfigurationError(reason)
        check_window(window)
        self.is_drifting = False
        self._normal = np.sort(np.asarray(normal_scores, np.float64))
        self._window = window
        self._watches_lower = watches_lower
        # Whole numbers add up and go away again without a trace of rounding, however long it runs.
        self._ranks: deque[int] = deque(maxlen=window)
        self._sum = 0

    @property
    def measure(self) -> float | None:
        """A of the latest scores, 0 to 1; ``None`` until the window is full."""
        if len(self._ranks) < self._window:
            return None
        return self._sum / (2 * len(self._normal) * self._window)

    @property
    def detail(self) -> str:
        """What has moved and how far, as a sentence; empty until the window is full."""
        measure = self.measure
        if measure is None:
            return ""
        than, causes = _HIGHER if measure > _EXPECTED else _LOWER
        figures = (
            f"a frame of the latest {self._window} scores higher than a normal picture with "
            f"probability {measure:.2f}, expected {_EXPECTED:.2f}"
        )
        if not self.is_drifting:
            return f"the scores are back at the model's normal scores: {figures}"
        return f"the scores are {than} the model's normal scores: {figures}. Look for {causes}"

    def feed(self, score: float) -> Phase | None:
        """Take the score of a frame.

        Args:
            score: finite.

        Returns:
            ``STARTED`` or ``ENDED`` if it is with this frame; ``None`` if nothing changes.
        """
        if len(self._ranks) == self._window:
            self._sum -= self._ranks[0]
        self._ranks.append(self._rank(score))
        self._sum += self._ranks[-1]
        measure = self.measure
        if measure is None:
            return None
        was_drifting = self.is_drifting
        if was_drifting:
            self.is_drifting = abs(measure - _EXPECTED) > ENDS_WITHIN
        else:
            self.is_drifting = self._is_far(measure)
        if self.is_drifting == was_drifting:
            return None
        return Phase.STARTED if self.is_drifting else Phase.ENDED

    def _rank(self, score: float) -> int:
        """Twice the normal scores below ``score``, plus those that equal it."""
        below = np.searchsorted(self._normal, score, side="left")
        return int(below + np.searchsorted(self._normal, score, side="right"))

    def _is_far(self, measure: float) -> bool:
        # 1 - 0.9 is no 0.1 in binary, 1 - 0.1 is 0.9.
        return measure >= STARTS_AT or (self._watches_lower and 1 - measure >= STARTS_AT)


def watch_drift(
    normal_scores: NormalScores,
    window: int = DEFAULT_WINDOW,
    *,
    has_mask: bool = False,
    say: Callable[[str], object],
) -> Drift | None:
    """The drift watch for a product, where its normal scores are enough for one.

    Args:
        normal_scores: of the product's manifest.
        window: how many of the latest scores are compared.
        has_mask: whether only a part of the picture is scored.
        say: told why there is no watch.

    Raises:
        ConfigurationError: the window is out of range.
    """
    reason = why_no_drift(len(normal_scores.scores))
    if reason is None:
        return Drift(normal_scores.scores, window, watches_lower=not has_mask)
    check_window(window)
    say(reason)
    return None


def check_window(window: int) -> None:
    """Refuse a window that is out of range.

    Raises:
        ConfigurationError: it is not 100 to 100,000.
    """
    if not LEAST_WINDOW <= window <= LARGEST_WINDOW:
        raise ConfigurationError(
            f"the drift window is {window} frames, expected {LEAST_WINDOW} to {LARGEST_WINDOW}"
        )


def why_no_drift(normal_scores: int) -> str | None:
    """Why so few normal scores allow no drift watch, as a sentence; ``None`` if they do."""
    if normal_scores >= LEAST_NORMAL_SCORES:
        return None
    return (
        f"no drift watch: the model knows {normal_scores} normal scores, and {LEAST_NORMAL_SCORES} "
        "are needed. calibrate-threshold with more good pictures of the line brings them"
    )
