"""What a camera has done so far, in figures: counts, pace and latency, in fixed memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from patchline.runtime.verdict import Verdict

LATENCY_WINDOW = 10_000
"""The percentiles are over so many latest frames: a line runs for a year in fixed memory."""

PACE_WINDOW_S = 5.0
"""The frame rate is that of the latest seconds."""

_MOST_TIMES = 4096  # at 800 frames a second the pace is that of the latest 5 s still


@dataclass(frozen=True)
class Percentiles:
    """Of the latency per frame in milliseconds; ``None`` without frames."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Figures:
    """Counts frames as they are judged; another thread may read meanwhile."""

    def __init__(self) -> None:
        self.frames = 0
        self.anomalous = 0
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self._times_s: deque[float] = deque(maxlen=_MOST_TIMES)

    def add(self, verdict: Verdict, now_s: float) -> None:
        """Count one judged frame at a monotonic time."""
        self.frames += 1
        self.anomalous += verdict.anomalous
        self._latencies_ms.append(verdict.times.total_ms)
        self._times_s.append(now_s)

    def fps(self, now_s: float) -> float:
        """Judged frames per second over the latest seconds; 0 once none comes any more."""
        times = [time for time in self._times_s.copy() if now_s - time <= PACE_WINDOW_S]
        if len(times) < 2:
            return 0.0
        # At a standstill the time since the last frame counts as well.
        span_s = max(times[-1], now_s - (times[-1] - times[0]) / (len(times) - 1)) - times[0]
        return (len(times) - 1) / span_s if span_s > 0 else 0.0

    def percentiles(self) -> Percentiles:
        """Of the latest frames."""
        values = self._latencies_ms.copy()
        if not values:
            return Percentiles()
        return Percentiles(*(float(value) for value in np.percentile(values, (50, 95, 99))))
