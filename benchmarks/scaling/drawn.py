"""Drawn rows that are spread as patch embeddings are."""

from __future__ import annotations

import torch
from torch import Tensor

_INTRINSIC_DIMENSION = 12
_BASIS_SEED = 12345


def drawn_rows(count: int, dimension: int, *, seed: int) -> Tensor:
    """Rows float32 ``[count, dimension]`` of a low intrinsic dimension, with some noise.

    All seeds draw from one distribution.
    """
    basis_generator = torch.Generator().manual_seed(_BASIS_SEED)
    basis = torch.randn(_INTRINSIC_DIMENSION, dimension, generator=basis_generator)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, _INTRINSIC_DIMENSION, generator=generator) @ basis
    return rows.relu_().add_(torch.randn(count, dimension, generator=generator), alpha=0.1)
