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

from patchline.runtime.errors import ConfigurationError

PROJECTED_DIMENSION = 128
"""Rows are compared after a random projection to this width (PatchCore, section 3.2)."""

_BLOCK_ROWS = 2048
_UPDATE_ROWS, _UPDATE_VALUES = 16384, 1 << 22
_TAKEN = -1.0  # squared distance of rows that cannot be picked (any more)


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
    nearest = _initial_distances(rows, excluded)
    candidates = int((nearest != _TAKEN).sum())
    if not max(1, start) <= size <= candidates:
        raise ConfigurationError(
            f"coreset size is {size}, expected {max(1, start)} to {candidates} candidates"
        )
    norms = torch.linalg.vector_norm(rows, dim=1).square_()  # no copy of the rows, as squares are
    picks = list(range(start)) or [_first_pick(nearest, seed)]
    nearest[picks] = _TAKEN
    _update(nearest, rows, norms, picks)
    while len(picks) < size:
        new = _round(nearest, rows, size - len(picks))
        nearest[new] = _TAKEN
        _update(nearest, rows, norms, new)
        picks += new
        if on_progress is not None:
            on_progress(len(picks))
    radius = float(nearest.max().clamp_min(0).sqrt())
    return Coreset(torch.tensor(picks, dtype=torch.int64), radius)


def _initial_distances(rows: Tensor, excluded: Tensor | None) -> Tensor:
    if rows.ndim != 2 or not rows.is_floating_point():
        raise ConfigurationError(f"expected floating rows [N, D], got {rows.dtype} {rows.shape}")
    if not all(
        bool(rows[start : start + _UPDATE_ROWS].isfinite().all())
        for start in range(0, len(rows), _UPDATE_ROWS)
    ):
        raise ConfigurationError("rows hold NaN or infinite values")
    nearest = torch.full((len(rows),), torch.inf, dtype=rows.dtype, device=rows.device)
    if excluded is not None:
        nearest[excluded.to(rows.device)] = _TAKEN
    return nearest


def _first_pick(nearest: Tensor, seed: int) -> int:
    # Drawn on the CPU, so that a CUDA device picks the same row.
    candidates = (nearest != _TAKEN).nonzero().flatten().cpu()
    generator = torch.Generator().manual_seed(seed)
    return int(candidates[torch.randint(len(candidates), (1,), generator=generator)])


def _round(nearest: Tensor, rows: Tensor, wanted: int) -> list[int]:
    """At most ``wanted`` further picks; ``nearest`` is only read."""
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
    return _greedy_in_block(rows[indices[order]], values[order], indices[order], tau, wanted)


def _greedy_in_block(
    block: Tensor, nearest: Tensor, indices: Tensor, tau: Tensor, wanted: int
) -> list[int]:
    """Run the greedy among the block's rows while their farthest lies beyond ``tau``."""
    picks: list[int] = []
    limit = max(float(tau), 0.0)
    while len(picks) < wanted:
        farthest, at = nearest.max(0)
        if farthest <= limit:
            break
        picks.append(int(indices[at]))
        torch.minimum(nearest, _squared_distances(block, block[at]), out=nearest)
        nearest[at] = _TAKEN
    return picks


def _lowest(mask: Tensor, wanted: int) -> list[int]:
    chosen: list[int] = mask.nonzero().flatten()[:wanted].tolist()
    return chosen


def _squared_distances(rows: Tensor, center: Tensor) -> Tensor:
    # By differences: equal rows get exactly equal distances, and a copy of a center exactly 0.
    return (rows - center).square_().sum(1)


def _update(nearest: Tensor, rows: Tensor, norms: Tensor, picks: list[int]) -> None:
    """Lower ``nearest`` in place to the squared distance to the nearest of the new picks."""
    centers, center_norms = rows[picks], norms[picks]
    step = min(_UPDATE_ROWS, max(1024, _UPDATE_VALUES // len(picks)), len(rows))
    offsets = rows.new_empty(step, len(picks))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block = rows[part]
        # Written into one buffer: fresh memory of this size costs as much as the product.
        torch.addmm(center_norms, block, centers.t(), alpha=-2, out=offsets[: len(block)])
        _lower(nearest[part], block, norms[part], offsets[: len(block)], centers, center_norms)


def _lower(
    nearest: Tensor,
    block: Tensor,
    norms: Tensor,
    offsets: Tensor,
    centers: Tensor,
    center_norms: Tensor,
) -> None:
    # The product ||c||^2 - 2 x.c finds the rows that come nearer to a pick, and the picks that may
    # be their nearest; these few distances are taken again by differences, because
    # ||x||^2 + ||c||^2 - 2 x.c cancels near 0.
    slack = 1e3 * torch.finfo(block.dtype).eps * (norms + center_norms.max())
    reach = offsets.amin(1)
    closer = ((reach + norms - slack < nearest) & (nearest > 0)).nonzero().flatten()
    rivals = offsets[closer] <= (reach + slack)[closer].unsqueeze(1)
    of_row, of_center = rivals.nonzero(as_tuple=True)
    for start in range(0, len(of_row), _UPDATE_ROWS):
        pairs = slice(start, start + _UPDATE_ROWS)
        at = closer[of_row[pairs]]
        exact = (block[at] - centers[of_center[pairs]]).square_().sum(1)
        nearest.scatter_reduce_(0, at, exact, "amin")
