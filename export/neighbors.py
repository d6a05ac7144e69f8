"""Exact nearest neighbours in a memory bank, in the form that ONNX hosts run fast.

One matrix product ranks all rows, and a two-level top-k picks: the k nearest rows lie in at most
k groups of 32, and those groups have the k smallest minima (DESIGN section 4). The distances
themselves are then computed again from the picked rows, because ranking by
||m||^2 - 2 z.m cancels badly near 0.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from patchline.runtime.errors import ConfigurationError
from patchline.runtime.graph import GROUP_ROWS

FAR = 1e30
"""Squared norm of the rows that fill the last group: finite, and never among the nearest."""


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
        count = bank.shape[0] // GROUP_ROWS
        groups = ranking.view(-1, count, GROUP_ROWS)
        # Not min(), which a graph that does not know the bank's rows would compute at run time.
        taken = count if count < self.k else self.k
        near = groups.amin(2).topk(taken, dim=1, largest=False).indices
        candidates = groups.gather(1, near.unsqueeze(2).expand(-1, -1, GROUP_ROWS)).flatten(1)
        at = candidates.topk(self.k, dim=1, largest=False).indices
        group = near.gather(1, torch.div(at, GROUP_ROWS, rounding_mode="floor"))
        return group * GROUP_ROWS + at % GROUP_ROWS

    def gather(self, indices: Tensor) -> Tensor:
        """Rows of the bank: int64 ``[...]`` -> ``[..., D]``."""
        bank = cast(Tensor, self.bank)
        return bank.index_select(0, indices.flatten()).view(*indices.shape, bank.shape[1])
