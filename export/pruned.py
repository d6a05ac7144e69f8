"""Nearest neighbours of a large bank for a fraction of the multiplications (issue 7).

Rows are ranked by an estimate of their distance that needs a third of the coordinates, and the
few best are then ranked by the distance itself. In the axes of the bank's principal components
let a patch be ``q = (q_p, q_r)``, leading coordinates and rest, and a row ``m = (m_p, m_r)``. Then

    ||q - m||^2 = ||q_p - m_p||^2 + ||q_r||^2 + ||m_r||^2 - 2 q_r . m_r

and only the last term needs the rest's coordinates. Put at its largest, ``||q_r|| ||m_r||``, it
gives a lower bound; near neighbours lie about half as far along (:data:`CORRELATION`), which ranks
better. Either way the estimate is one matrix product over p + 2 coordinates: ``[q_p, ||q_r||, 1]``
with ``[-2 m_p, -2 c ||m_r||, ||m||^2]``.

It is an approximation: a neighbour that the estimate ranks past the candidates is missed, and the
next one takes its place. :mod:`patchline.export.search` measures how often before a model is let
out with it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from patchline.export.detector import Detector
from patchline.export.neighbors import FAR, NearestNeighbors, smallest_in_groups
from patchline.runtime.contract import PrunedSearch
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.graph import GROUP_ROWS

CORRELATION = 0.5
"""c: what ``q_r . m_r`` is taken for, in parts of ``||q_r|| ||m_r||``.

Share of 4,096 test patches of bottle and pill (real ResNet-18 features, 10 % banks, p = 94, 24
candidates) all of whose nine nearest rows were found: 98.9 and 98.5 % with 0.7, 99.2 and 98.3 %
with 0.5, 99.2 and 97.8 % with 0.3; with 1, the lower bound, 96.5 and 98.3 %.
"""

_REST_AND_SQUARE = 2
_MULTIPLE = 32  # matrix products over a multiple of it waste nothing


class PrunedNearestNeighbors(NearestNeighbors):
    """Finds nearly always the ``k`` nearest rows of ``memory_bank [M, D]``.

    Args:
        memory_bank: finite float32 ``[M, D]``.
        k: neighbours wanted.
        plan: leading coordinates, at most D, and candidates, at least k.

    Attributes:
        center: ``[D]``, mean of the rows.
        axes: ``[D, p]``, leading principal components of the rows about it.
        estimates: ``[p + 2, M']``, the rows as the estimate needs them.

    Raises:
        ConfigurationError: a bank, k or plan that cannot be.
    """

    def __init__(self, memory_bank: Tensor, k: int, plan: PrunedSearch) -> None:
        super().__init__(memory_bank, k)
        dimension = memory_bank.shape[1]
        if not 1 <= plan.leading <= dimension or plan.candidates < k:
            raise ConfigurationError(
                f"a search by {plan.leading} of {dimension} coordinates with {plan.candidates} "
                f"candidates for {k} neighbours cannot be: expected 1 to {dimension} coordinates "
                f"and at least {k} candidates"
            )
        self.candidates = min(plan.candidates, self.rows)
        center = memory_bank.mean(0)
        axes = _principal_axes(memory_bank, center, plan.leading)
        self.register_buffer("center", center)
        self.register_buffer("axes", axes)
        self.register_buffer("estimates", _estimates(memory_bank, center, axes))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Indices int64 ``[N, k]`` of the nearest rows for ``[N, D]``, nearest first."""
        return self.among(embeddings, self.candidates)

    def among(self, embeddings: Tensor, count: int) -> Tensor:
        """The same with so many candidates, k at least."""
        candidates = smallest_in_groups(self.estimate(embeddings), count)
        squares = self.get_buffer("squares").index_select(0, candidates.flatten())
        products = (self.gather(candidates) @ embeddings.unsqueeze(2)).squeeze(2)
        ranking = squares.view(candidates.shape) - 2 * products
        nearest = ranking.topk(self.k, dim=1, largest=False).indices
        return candidates.gather(1, nearest)

    @contextmanager
    def without(self, rows: Tensor) -> Iterator[None]:
        """Within it, rows bool ``[M]`` are nobody's nearest; as many others as candidates are."""
        squares = self.get_buffer("estimates")[-1]
        before = squares.clone()
        squares[: self.rows][rows] = FAR
        try:
            with super().without(rows):
                yield
        finally:
            squares.copy_(before)

    def last_gap(self, embeddings: Tensor) -> Tensor:
        """By how much the estimate puts the first row that is no candidate past the last one that
        is, ``[N]``; infinite where every row is a candidate."""
        if self.candidates == self.rows:
            return embeddings.new_full((len(embeddings),), torch.inf)
        estimate = self.estimate(embeddings)
        order = smallest_in_groups(estimate, self.candidates + 1)
        ends = estimate.gather(1, order[:, -2:])
        return ends[:, 1] - ends[:, 0]

    def estimate(self, embeddings: Tensor) -> Tensor:
        """Estimated squared distances ``[N, M']``, less a number of each patch's own."""
        leading, rest = _split(embeddings, self.get_buffer("center"), self.get_buffer("axes"))
        known = torch.cat([leading, rest, torch.ones_like(rest)], dim=1)
        return known @ self.get_buffer("estimates")


def default_plan(dimension: int, k: int) -> PrunedSearch:
    """A third of the coordinates, less the two that the rest needs, and 3.5 k candidates.

    Real ResNet-18 features (D = 384, k = 9, 10 % banks, 30 test pictures each of bottle and pill):
    every nearest row was found, and

    ========== ========== ================ ======================
    p          candidates all nine found   image score changes by
    ========== ========== ================ ======================
    62         32         97.7 and 95.5 %  up to 0.95 %
    94         32         99.85 and 99.7 % up to 0.66 %
    94         48         99.99 %          up to 0.001 %
    126        24         99.85 and 99.8 % up to 0.43 %
    **126**    **32**     99.98 %          up to 0.015 %
    ========== ========== ================ ======================

    (with 62 coordinates, the nearest of 99.99 %). Over all 250 test pictures the default changes
    no verdict, and scores by at most 1.0 % (bottle) and 0.02 % (pill): see
    benchmarks/search_agreement.py.
    """
    return PrunedSearch(leading=_leading(dimension, 3), candidates=max(_MULTIPLE, 7 * k // 2))


def deeper_plans(dimension: int, k: int) -> tuple[PrunedSearch, ...]:
    """Plans for banks in which the default misses too much; each costs more than the one before.

    Dense banks have many rows that are nearly as near as the nearest, so that more candidates are
    needed; and features of a backbone that spreads over many coordinates need more of these. Shares
    of patches all of whose nine nearest rows were found, training pictures of bottle:

    ========================================= ======= ======== =======
    bank, drawn at random                     default the next the last
    ========================================= ======= ======== =======
    102,400 of 214,016 rows, real ResNet-18   93.8 %  99.93 %  99.92 %
    20,480 of 102,400, untrained WRN-50       83.2 %  97.6 %   99.87 %
    ========================================= ======= ======== =======
    """
    default = default_plan(dimension, k)
    return (
        PrunedSearch(leading=default.leading, candidates=4 * default.candidates),
        PrunedSearch(leading=_leading(dimension, 2), candidates=2 * default.candidates),
    )


def _leading(dimension: int, part: int) -> int:
    """That part of the coordinates, so that the product with the rest's two wastes nothing."""
    width = max(_MULTIPLE, dimension // part // _MULTIPLE * _MULTIPLE)
    return max(1, min(dimension, width - _REST_AND_SQUARE))


def with_pruned_search(detector: Detector, plan: PrunedSearch) -> Detector:
    """The same model with its bank, in float32, searched so; the other is left alone.

    Raises:
        ConfigurationError: the plan does not fit the bank.
    """
    search = detector.head.search
    pruned = PrunedNearestNeighbors(search.get_buffer("bank")[: search.rows], search.k, plan)
    # The score may hold the search, too: wherever the copy meets the old one it takes the new.
    head = copy.deepcopy(detector.head, {id(search): pruned})
    return Detector(detector.embedder, head)


def _principal_axes(rows: Tensor, center: Tensor, count: int) -> Tensor:
    """Leading eigenvectors of the rows' scatter, ``[D, count]``, in float64 on the way."""
    scatter = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), 4096):
        centered = (rows[start : start + 4096] - center).double()
        scatter.addmm_(centered.T, centered)
    vectors = torch.linalg.eigh(scatter).eigenvectors.flip(1)
    axes: Tensor = vectors[:, :count].to(rows.dtype).contiguous()
    return axes


def _split(rows: Tensor, center: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """Leading coordinates ``[N, p]`` and the norm of the rest ``[N, 1]``."""
    centered = rows - center
    leading = centered @ axes
    rest = centered.square().sum(1, keepdim=True) - leading.square().sum(1, keepdim=True)
    return leading, rest.clamp_min(0).sqrt()


def _estimates(rows: Tensor, center: Tensor, axes: Tensor) -> Tensor:
    leading, rest = _split(rows, center, axes)
    squares = (rows - center).square().sum(1, keepdim=True)
    table = torch.cat([-2 * leading, -2 * CORRELATION * rest, squares], dim=1).T
    padding = -len(rows) % GROUP_ROWS
    filled = nn.functional.pad(table, (0, padding))
    filled[-1, len(rows) :] = FAR
    return filled.contiguous()
