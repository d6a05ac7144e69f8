"""Counts, pace and latency of a camera."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.line.figures import (
    LATENCY_WINDOW,
    PACE_WINDOW_S,
    Figures,
    Percentiles,
)
from patchline.runtime.verdict import StageTimes, Verdict

from ..fakes import NOON


def verdict(total_ms: float, score: float = 1.0) -> Verdict:
    return Verdict("lamp", 0, "a fake", None, NOON, score, 2.0, StageTimes(9.0, 9.0, 0.0, total_ms))


def test_counts_and_percentiles_are_those_of_the_frames() -> None:
    figures = Figures()
    for total_ms in range(101):
        figures.add(verdict(float(total_ms), score=2.0 if total_ms < 4 else 1.0), 0.0)
    assert (figures.frames, figures.anomalous) == (101, 4)
    assert figures.percentiles() == Percentiles(50.0, 95.0, 99.0)


def test_the_percentiles_are_over_the_latest_frames_only() -> None:
    figures = Figures()
    figures.add(verdict(1e9), 0.0)
    for _ in range(LATENCY_WINDOW):
        figures.add(verdict(1.0), 0.0)
    assert (figures.frames, figures.percentiles().p99_ms) == (LATENCY_WINDOW + 1, 1.0)


def test_without_frames_there_are_none() -> None:
    assert Figures().percentiles() == Percentiles(None, None, None)
    assert Figures().fps(10.0) == 0.0


@given(st.floats(0.5, 100.0), st.integers(2, 300))
def test_the_pace_of_steady_frames_is_theirs(fps: float, count: int) -> None:
    figures = Figures()
    for i in range(count):
        figures.add(verdict(1.0), i / fps)
    last_s = (count - 1) / fps
    recent = sum(last_s - i / fps <= PACE_WINDOW_S for i in range(count))
    assert figures.fps(last_s) == pytest.approx(fps if recent > 1 else 0.0)


def test_the_pace_falls_once_frames_stop_coming() -> None:
    figures = Figures()
    for i in range(50):
        figures.add(verdict(1.0), i / 10)
    paces = [figures.fps(4.9 + wait_s) for wait_s in (0.0, 0.1, 0.5, 2.0, 4.0, 6.0)]
    assert paces == sorted(paces, reverse=True)
    assert paces[0] == pytest.approx(10.0)
    assert paces[2] < 9.5 and paces[-1] == 0.0
