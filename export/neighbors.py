"""Exact nearest neighbours in a memory bank, in the form that ONNX hosts run fast.

One matrix product ranks all rows, and a two-level top-k picks: the k nearest rows lie in at most
k groups of 32, and those groups have the k smallest minima (DESIGN section 4). The distances
themselves are then computed again from the picked rows, because ranking by
||m||^2 - 2 z.m cancels badly near 0. With a bank in half precision a few rows more are picked and
ranked again in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from patchline.runtime.contract import BankPrecision
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.graph import GROUP_ROWS, HALF_SPARES

FAR = 1e30
"""Squared norm of the rows that fill the last group: finite, and never among the nearest."""

LARGEST_HALF_NORM = 128.0
"""Of a row in half precision: its product with a patch four times as long is still a half.

A product past that would count as the nearest; the distance to that row is computed exactly, so
that the patch is only found farther away than it is.
"""


class NearestNeighbors(nn.Module):
    """Finds the ``k`` nearest rows of ``memory_bank [M, D]`` by Euclidean distance.

    Attributes:
        k: neighbours found: the number asked for, or the bank's rows where it has fewer.
        bank: float ``[M', D]``, M rounded up to a multiple of 32.
    """

    def __init__(self, memory_bank: Tensor, k: int) -> None:
        super().__init__()
        if memory_bank.ndim != 2 or len(memory_bank) == 0 or not memory_bank.isfinite().all():
            raise ConfigurationError(
                f"expected a finite memory bank [M, D], got {tuple(memory_bank.shape)}"
            )
        if k < 1:
            raise ConfigurationError(f"k is {k}, expected at least 1")
        self.rows = len(memory_bank)
        self.k = min(k, self.rows)
        padding = -self.rows % GROUP_ROWS
        bank = nn.functional.pad(memory_bank, (0, 0, 0, padding))
        squares = bank.square().sum(1)
        squares[self.rows :] = FAR
        self.register_buffer("bank", bank)
        self.register_buffer("squares", squares)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Indices int64 ``[N, k]`` of the nearest rows for ``[N, D]``, nearest first."""
        bank, squares = cast(Tensor, self.bank), cast(Tensor, self.squares)
        # ||z - m||^2 less ||z||^2, which changes no order. One Gemm in the graph.
        ranking = torch.addmm(squares, embeddings, bank.t(), alpha=-2)
        return smallest_in_groups(ranking, self.k)

    @contextmanager
    def without(self, rows: Tensor) -> Iterator[None]:
        """Within it, rows bool ``[M]`` are nobody's nearest; at least k others are left."""
        squares = self.get_buffer("squares")
        before = squares.clone()
        squares[: self.rows][rows] = FAR
        try:
            yield
        finally:
            squares.copy_(before)

    def gather(self, indices: Tensor) -> Tensor:
        """Rows of the bank: int64 ``[...]`` -> ``[..., D]``."""
        bank = cast(Tensor, self.bank)
        return bank.index_select(0, indices.flatten()).view(*indices.shape, bank.shape[1])


class HalfNearestNeighbors(NearestNeighbors):
    """The same search in a bank that is stored, and ranked first, in half precision.

    The products are rounded to half, so ``k + 8`` rows are picked by them and ranked again from
    float32 products of the gathered rows. Measured with real ResNet-18 features of bottle and pill
    (50,176 patches, banks of 2,150 and 2,760 rows), all nine nearest were among the picked in

    ================== ======== ======== ======== ========
    products           k        k + 2    k + 4    k + 8
    ================== ======== ======== ======== ========
    summed in float32  95.64 %  99.96 %  100 %    100 %
    summed in half     87.40 %  99.40 %  99.98 %  100 %
    ================== ======== ======== ======== ========

    at least, over six sets of pictures; the nearest alone always. Runtimes may sum either way.

    Attributes:
        bank: float16 ``[M', D]``.
        squares: float32 ``[M']``, squared norms of the rows as stored.
    """

    def __init__(self, memory_bank: Tensor, k: int) -> None:
        stored = memory_bank.half()
        super().__init__(stored.float(), k)
        norm = float(self.get_buffer("squares")[: self.rows].max().sqrt())
        if norm > LARGEST_HALF_NORM:
            raise ConfigurationError(
                f"a row of the memory bank has norm {norm:.3g}, and products in half precision "
                f"take at most {LARGEST_HALF_NORM:g}; those in float32 take any"
            )
        self.register_buffer("bank", self.get_buffer("bank").half())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Indices int64 ``[N, k]`` of the nearest rows for float32 ``[N, D]``, nearest first."""
        bank, squares = cast(Tensor, self.bank), cast(Tensor, self.squares)
        # Half the squares, so that the products need no factor, which would halve their range.
        # The addition comes after the cast: the squares of rows that fill up are no half.
        nothing = torch.zeros(1, dtype=torch.float16, device=bank.device)
        products = torch.addmm(nothing, embeddings.half(), bank.t(), alpha=-1)
        candidates = smallest_in_groups(products.float() + 0.5 * squares, self.k + HALF_SPARES)
        return self._nearest_of(embeddings, candidates)

    def gather(self, indices: Tensor) -> Tensor:
        """Rows of the bank as float32: int64 ``[...]`` -> ``[..., D]``."""
        return super().gather(indices).float()

    def _nearest_of(self, embeddings: Tensor, candidates: Tensor) -> Tensor:
        """The k nearest, nearest first, of rows ``[N, c]``, in float32."""
        # By the squares and not by differences: they keep the rows that fill up far away.
        squares = cast(Tensor, self.squares).index_select(0, candidates.flatten())
        products = (self.gather(candidates) @ embeddings.unsqueeze(2)).squeeze(2)
        ranking = squares.view(candidates.shape) - 2 * products
        nearest = ranking.topk(self.k, dim=1, largest=False).indices
        return candidates.gather(1, nearest)


SEARCHES: dict[BankPrecision, type[NearestNeighbors]] = {
    "fp32": NearestNeighbors,
    "fp16": HalfNearestNeighbors,
}


def smallest_in_groups(ranking: Tensor, k: int) -> Tensor:
    """Indices int64 ``[N, k]`` of the smallest values of ``[N, M']``, smallest first.

    M' is a multiple of 32; where it is smaller than k, there are only M' indices.
    """
    count = ranking.shape[1] // GROUP_ROWS
    groups = ranking.view(-1, count, GROUP_ROWS)
    # Not min(), which a graph that does not know the bank's rows would compute at run time.
    taken = count if count < k else k
    near = groups.amin(2).topk(taken, dim=1, largest=False).indices
    # Whole groups by their number among all patches' groups: a gather along an axis copies value
    # by value, and takes ten times as long.
    first = torch.arange(near.shape[0], device=near.device).unsqueeze(1) * count
    whole = ranking.view(-1, GROUP_ROWS).index_select(0, (first + near).flatten())
    candidates = whole.view(-1, taken * GROUP_ROWS)
    found = k if k < taken * GROUP_ROWS else taken * GROUP_ROWS
    at = candidates.topk(found, dim=1, largest=False).indices
    group = near.gather(1, torch.div(at, GROUP_ROWS, rounding_mode="floor"))
    return group * GROUP_ROWS + at % GROUP_ROWS
