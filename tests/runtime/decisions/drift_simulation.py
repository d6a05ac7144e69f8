"""How far chance alone moves the drift measure: frames and normal scores of one and the same law.

``python tests/runtime/decisions/drift_simulation.py`` prints the figures of docs/decisions.md.
Ranks do not depend on the law, so uniform scores stand for all continuous ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from patchline.runtime.decisions.drift import STARTS_AT

Measures = npt.NDArray[np.float64]


def moving_measure(scores: Measures, normal_scores: Measures, window: int) -> Measures:
    """A of each ``window`` scores in a row, ``[len(scores) - window + 1]``, from its definition."""
    normal = np.sort(normal_scores)
    above = (np.searchsorted(normal, scores, "left") + np.searchsorted(normal, scores, "right")) / 2
    sums = np.cumsum(np.concatenate([[0.0], above]))
    return (sums[window:] - sums[:-window]) / (window * len(normal))


def runs(
    normal_scores: int, window: int, sets: int, frames: int, frames_per_part: int = 1
) -> Iterator[Measures]:
    """The measures along a run of ``frames``, for each of ``sets`` draws of normal scores."""
    rng = np.random.default_rng([normal_scores, window, frames_per_part])
    for _ in range(sets):
        parts = rng.random(-(-frames // frames_per_part))
        scores = np.repeat(parts, frames_per_part)[:frames]
        yield moving_measure(scores, rng.random(normal_scores), window)


def furthest(measures: Iterator[Measures]) -> Measures:
    """The largest distance from 0.5 in each run."""
    return np.array([np.abs(run - 0.5).max() for run in measures])


def main() -> None:
    for normal_scores in (10, 20, 50, 200):
        for window in (100, 200):
            _show(normal_scores, window, sets=1000, frames=100_000)
    for frames_per_part in (5, 10, 20, 50, 200):
        _show(200, 200, sets=200, frames=100_000, frames_per_part=frames_per_part)


def _show(
    normal_scores: int, window: int, sets: int, frames: int, frames_per_part: int = 1
) -> None:
    start_s = time.perf_counter()
    found = furthest(runs(normal_scores, window, sets, frames, frames_per_part))
    share = (found >= STARTS_AT - 0.5).mean()
    sys.stdout.write(
        f"N {normal_scores:4d}  window {window:4d}  frames per part {frames_per_part:3d}: "
        f"median {np.median(found):.3f}  99 % {np.quantile(found, 0.99):.3f}  largest "
        f"{found.max():.3f}  runs with a drift {share:.4f} of {sets}, {frames} frames each "
        f"({time.perf_counter() - start_s:.0f} s)\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
