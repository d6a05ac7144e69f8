"""Greedy k-center coreset (Gonzalez 1985), exact, in rounds that stay in cache (DESIGN section 4).

The textbook loop reads every row for every pick. A round instead takes the rows that are farthest
now; tau is the distance of the farthest row left outside. Distances only shrink, so for as long
as a row of the block lies beyond tau, it is the farthest of all, and the greedy can run inside
the block. Then all rows are brought up to date with the round's new centers at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from patchline.export.nearest_center import (
    TAKEN,
    initial_distances,
    squared_norms,
    update,
)
from patchline.runtime.errors import ConfigurationError

PROJECTED_DIMENSION = 128
"""Rows are compared after a random projection to this width (PatchCore, section 3.2)."""

_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Coreset:
    """Picked rows.

    Attributes:
        indices: int64 ``[M]`` on the CPU, in order of picking.
        radius: largest distance from any candidate to its nearest pick.
    """

    indices: Tensor
    radius: float


def coreset_size(rows: int, ratio: float) -> int:
    """Number of picks for a ratio in (0, 1]; at least one.

    Raises:
        ConfigurationError: the ratio is outside (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ConfigurationError(f"coreset_ratio is {ratio}, expected a number in (0, 1]")
    # A little more than the product, because 100 * 0.29 is 28.999999999999996.
    return max(1, math.floor(rows * ratio + 1e-9))


def random_projection(dimension: int, seed: int) -> Tensor | None:
    """Gaussian projection matrix float32 ``[dimension, 128]`` that keeps distances on average.

    ``None`` where rows are no wider than that: they are compared as they are.
    """
    if dimension <= PROJECTED_DIMENSION:
        return None
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(dimension, PROJECTED_DIMENSION, generator=generator)
    return matrix.div_(PROJECTED_DIMENSION**0.5)


def greedy_coreset(
    rows: Tensor,
    size: int,
    *,
    seed: int = 0,
    excluded: Tensor | None = None,
    start: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Coreset:
    """Pick ``size`` rows so that every row is near a pick: the farthest row, again and again.

    The first pick is drawn with ``seed``. Equally far rows are picked in the order of their
    index, and a row is never picked twice. Computed where ``rows`` lies (CPU or CUDA).

    Args:
        rows: floating ``[N, D]``, finite.
        size: number of picks, 1 to the number of candidates.
        seed: of the first pick.
        excluded: bool ``[N]``; these rows are no candidates (held-out images).
        start: the first so many rows are picked beforehand, in their order, and count among the
            ``size`` (a bank that is extended); nothing is drawn then.
        on_progress: called with the number of picks so far, about once a round.

    Raises:
        ConfigurationError: ``size`` is out of range, or a row is not finite.
    """
    greedy = Greedy(rows, excluded)
    if not max(1, start) <= size <= greedy.candidates:
        raise ConfigurationError(
            f"coreset size is {size}, expected {max(1, start)} to {greedy.candidates} candidates"
        )
    greedy.begin(start, seed)
    greedy.grow(size, on_progress=on_progress)
    return greedy.picked()


class Greedy:
    """The picks so far, and each row's squared distance to the nearest of them.

    Args:
        rows: floating ``[N, D]``, finite; only read.
        excluded: bool ``[N]``; these rows are no candidates.

    Attributes:
        candidates: rows that can be picked at all.

    Raises:
        ConfigurationError: rows of another kind, or one is not finite.
    """

    def __init__(self, rows: Tensor, excluded: Tensor | None = None) -> None:
        self._rows = rows
        self._nearest = initial_distances(rows, excluded)
        self._norms = squared_norms(rows)
        self._picks: list[int] = []
        self.candidates = int((self._nearest != TAKEN).sum())

    @property
    def farthest(self) -> float:
        """Largest squared distance of a candidate; 0 where all are picked, or there is none."""
        return max(0.0, float(self._nearest.max())) if len(self._nearest) else 0.0

    def begin(self, start: int, seed: int) -> None:
        """Pick the first ``start`` rows, or one that is drawn."""
        self._take(list(range(start)) or [_first_pick(self._nearest, seed)])

    def grow(
        self,
        size: int,
        *,
        beyond: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Pick up to ``size``; with ``beyond`` only rows at a larger squared distance."""
        while len(self._picks) < size and (beyond is None or self.farthest > beyond):
            wanted = size - len(self._picks)
            self._take(_round(self._nearest, self._rows, wanted, beyond or 0.0))
            if on_progress is not None:
                on_progress(len(self._picks))

    def picked(self) -> Coreset:
        """What was picked, with the radius."""
        return Coreset(torch.tensor(self._picks, dtype=torch.int64), self.farthest**0.5)

    def _take(self, picks: list[int]) -> None:
        self._nearest[picks] = TAKEN
        centers, norms = self._rows[picks], self._norms[picks]
        update(self._nearest, self._rows, self._norms, centers, norms)
        self._picks += picks


def _first_pick(nearest: Tensor, seed: int) -> int:
    # Drawn on the CPU, so that a CUDA device picks the same row.
    candidates = (nearest != TAKEN).nonzero().flatten().cpu()
    generator = torch.Generator().manual_seed(seed)
    return int(candidates[torch.randint(len(candidates), (1,), generator=generator)])


def _round(nearest: Tensor, rows: Tensor, wanted: int, beyond: float) -> list[int]:
    """At most ``wanted`` further picks beyond a squared distance; ``nearest`` is only read."""
    farthest, first = nearest.max(0)  # of equals, the first
    if farthest <= 0:  # every candidate left repeats a pick
        return _lowest(nearest == 0, wanted)
    values, indices = nearest.topk(min(_BLOCK_ROWS + 1, len(nearest)))
    if len(nearest) <= _BLOCK_ROWS:
        tau = values.new_tensor(-torch.inf)
    else:
        tau, values, indices = values[-1], values[:-1], indices[:-1]
    if farthest <= tau:  # more equals than a block holds
        return [int(first)]
    order = indices.argsort()
    limit = max(float(tau), beyond)
    return _greedy_in_block(rows[indices[order]], values[order], indices[order], limit, wanted)


def _greedy_in_block(
    block: Tensor, nearest: Tensor, indices: Tensor, limit: float, wanted: int
) -> list[int]:
    """Run the greedy among the block's rows while their farthest lies beyond ``limit``."""
    picks: list[int] = []
    while len(picks) < wanted:
        farthest, at = nearest.max(0)
        if float(farthest) <= limit:
            break
        picks.append(int(indices[at]))
        torch.minimum(nearest, _squared_distances(block, block[at]), out=nearest)
        nearest[at] = TAKEN
    return picks


def _lowest(mask: Tensor, wanted: int) -> list[int]:
    chosen: list[int] = mask.nonzero().flatten()[:wanted].tolist()
    return chosen


def _squared_distances(rows: Tensor, center: Tensor) -> Tensor:
    # By differences: equal rows get exactly equal distances, and a copy of a center exactly 0.
    return (rows - center).square_().sum(1)
