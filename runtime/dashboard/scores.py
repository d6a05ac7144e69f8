"""The latest scores of a camera for the chart: some minutes, in fixed memory at any frame rate."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

CAPACITY = 2_400
SPACING_S = 0.05
"""Frames closer together share a point, so that the points last for two minutes at least."""


class ScorePoint(NamedTuple):
    """One frame, or the most anomalous of a few within :data:`SPACING_S`.

    Attributes:
        time_s: on the clock's monotonic scale.
        score: image score.
        threshold: what it was compared with.
        anomalous: whether it was at or above.
    """

    time_s: float
    score: float
    threshold: float
    anomalous: bool


class ScoreRing:
    """The latest points, numbered from 1. Not for several threads at once."""

    def __init__(self) -> None:
        self._points: deque[ScorePoint] = deque(maxlen=CAPACITY)
        self._open: ScorePoint | None = None
        self._end_s = 0.0
        self.count = 0

    def add(self, point: ScorePoint) -> None:
        """Take one frame; a peak is never lost to its neighbours."""
        if self._open is None or point.time_s >= self._end_s:
            self._finish()
            self._open, self._end_s = point, point.time_s + SPACING_S
        elif (point.anomalous, point.score) > (self._open.anomalous, self._open.score):
            self._open = point

    def since(self, number: int, now_s: float) -> list[ScorePoint]:
        """The finished points after point ``number``, oldest first."""
        if now_s >= self._end_s:
            self._finish()
        new = min(max(self.count - number, 0), len(self._points))
        return list(self._points)[len(self._points) - new :]

    def _finish(self) -> None:
        if self._open is not None:
            self._points.append(self._open)
            self.count += 1
            self._open = None
