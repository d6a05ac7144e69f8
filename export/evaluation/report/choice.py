"""Which pictures of a test set are worth a look: the most wrong and the most telling ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchline.export.evaluation.result import ScoredPicture

Pictures = Sequence[ScoredPicture]
Choice = Callable[[Pictures, float], list[ScoredPicture]]
"""Pictures and threshold -> all pictures of a kind, the one to look at first in front.

Of equal scores, the picture that came first stays first. A score at the threshold is anomalous.
"""


def missed_defects(pictures: Pictures, threshold: float) -> list[ScoredPicture]:
    """Defective ones below the threshold, the lowest scores first."""
    missed = [item for item in _defective(pictures) if item.score < threshold]
    return sorted(missed, key=_score)


def false_alarms(pictures: Pictures, threshold: float) -> list[ScoredPicture]:
    """Good ones at or above the threshold, the highest scores first."""
    alarms = [item for item in _good(pictures) if item.score >= threshold]
    return sorted(alarms, key=_falling_score)


def close_calls(pictures: Pictures, threshold: float) -> list[ScoredPicture]:
    """Rightly judged ones, good or defective, the nearest to the threshold first."""
    right = [item for item in pictures if item.picture.is_defective == (item.score >= threshold)]
    return sorted(right, key=lambda item: abs(item.score - threshold))


def clearest_finds(pictures: Pictures, threshold: float) -> list[ScoredPicture]:
    """Found defects: the highest score of every kind of defect, then the highest of the rest."""
    found = sorted(
        (item for item in _defective(pictures) if item.score >= threshold), key=_falling_score
    )
    best: dict[str, ScoredPicture] = {}
    for item in found:
        best.setdefault(item.picture.defect, item)
    firsts = list(best.values())
    return [*firsts, *(item for item in found if item not in firsts)]


def quietest_good(pictures: Pictures, threshold: float) -> list[ScoredPicture]:
    """Good ones below the threshold, the lowest scores first."""
    quiet = [item for item in _good(pictures) if item.score < threshold]
    return sorted(quiet, key=_score)


def _score(item: ScoredPicture) -> float:
    return item.score


def _falling_score(item: ScoredPicture) -> float:
    return -item.score


def _defective(pictures: Pictures) -> list[ScoredPicture]:
    return [item for item in pictures if item.picture.is_defective]


def _good(pictures: Pictures) -> list[ScoredPicture]:
    return [item for item in pictures if not item.picture.is_defective]
