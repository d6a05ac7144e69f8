"""Squared distances of rows to their nearest center, a block of rows at a time.

What the greedy k-center of :mod:`patchline.export.coreset` keeps up to date.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchline.runtime.errors import ConfigurationError

TAKEN = -1.0
"""Squared distance of rows that cannot be picked (any more)."""

_UPDATE_ROWS, _UPDATE_VALUES = 16384, 1 << 22


def distances_to(centers: Tensor, rows: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Distance of each row to its nearest center.

    Args:
        centers: floating ``[M, D]``, at least one.
        rows: floating ``[N, D]``, finite.
        excluded: bool ``[N]``; the distance of these rows is 0.

    Returns:
        ``[N]``.

    Raises:
        ConfigurationError: rows of another kind, or one is not finite.
    """
    nearest = initial_distances(rows, excluded)
    update(nearest, rows, squared_norms(rows), centers, squared_norms(centers))
    return nearest.clamp_min_(0).sqrt_()


def initial_distances(rows: Tensor, excluded: Tensor | None) -> Tensor:
    """Infinity for every row ``[N]``, and :data:`TAKEN` for the excluded ones.

    Raises:
        ConfigurationError: rows of another kind, or one is not finite.
    """
    if rows.ndim != 2 or not rows.is_floating_point():
        raise ConfigurationError(f"expected floating rows [N, D], got {rows.dtype} {rows.shape}")
    if not all(
        bool(rows[start : start + _UPDATE_ROWS].isfinite().all())
        for start in range(0, len(rows), _UPDATE_ROWS)
    ):
        raise ConfigurationError("rows hold NaN or infinite values")
    nearest = torch.full((len(rows),), torch.inf, dtype=rows.dtype, device=rows.device)
    if excluded is not None:
        nearest[excluded.to(rows.device)] = TAKEN
    return nearest


def squared_norms(rows: Tensor) -> Tensor:
    """Squared length of each row, ``[N]``."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)  # no copy of the rows, as squares are
    return norms.square_()


def update(
    nearest: Tensor, rows: Tensor, norms: Tensor, centers: Tensor, center_norms: Tensor
) -> None:
    """Lower ``nearest`` in place to the squared distance to the nearest of the new centers.

    Args:
        nearest: ``[N]``; entries that are 0 or :data:`TAKEN` stay.
        rows: ``[N, D]``.
        norms: their squared lengths ``[N]``.
        centers: ``[M, D]``.
        center_norms: their squared lengths ``[M]``.
    """
    step = max(1, min(_UPDATE_ROWS, max(1024, _UPDATE_VALUES // len(centers)), len(rows)))
    offsets = rows.new_empty(step, len(centers))
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
