"""Closed-form influence and adaptive noise (DESIGN section 3; no autograd anywhere).

For a patch z with nearest rows m_1..m_k at distances d_j, the mean distance is
d_mean = 1/k sum_j d_j and its Jacobian J = 1/k sum_j (z - m_j) / d_j. ||J|| is near 1 where all
neighbours lie one way (an outlier) and near 0 inside the bank's cloud.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import ConfigurationError

SIGMA_MIN, SIGMA_MAX = 0.01, 0.5
DISTANCE_GATE = 1.0
"""Lambda: weight of the distance's z-score in the noise level."""

_TINY = 1e-12
_BLOCK_VALUES = 1 << 19
"""Neighbours times channels that a block holds, 2 MiB."""


@dataclass(frozen=True)
class Influence:
    """Distances and Jacobian of N patches.

    Attributes:
        distances: ``[N, k]``, to the nearest rows, nearest first.
        mean_distance: ``[N]``, d_mean.
        jacobian: ``[N, D]``, of ``mean_distance`` with respect to the patch.
    """

    distances: Tensor
    mean_distance: Tensor
    jacobian: Tensor

    @property
    def norm(self) -> Tensor:
        """||J||, ``[N]``, 0 to 1."""
        return _norm(self.jacobian, dim=1)


def closed_form_influence(
    embeddings: Tensor, neighbors: Tensor, duplicate_distance: float | Tensor = 0.0
) -> Influence:
    """Distances to the neighbours and the Jacobian of their mean.

    Args:
        embeddings: ``[N, D]``.
        neighbors: ``[N, k, D]``, nearest first.
        duplicate_distance: rows at most this far count as equal to the patch; their term of the
            Jacobian is 0, not the direction of a rounding error.
    """
    differences = embeddings.unsqueeze(1) - neighbors
    distances = _norm(differences, dim=2)
    apart = distances > duplicate_distance
    inverse = torch.where(apart, 1 / distances.clamp_min(_TINY), torch.zeros_like(distances))
    # A product of [1, k] and [k, D] per patch: a third of the cost of multiply and mean.
    jacobian = (inverse.unsqueeze(1) @ differences).squeeze(1) / distances.shape[1]
    return Influence(distances, distances.mean(1), jacobian)


def influence_of_rows(
    embeddings: Tensor,
    gather: Callable[[Tensor], Tensor],
    indices: Tensor,
    duplicate_distance: float | Tensor = 0.0,
) -> Influence:
    """:func:`closed_form_influence` with the neighbours ``gather(indices)``, the same bit by bit.

    On a CPU it goes block by block, so that neighbours and differences ``[N, k, D]`` stay in cache
    and are never held whole: a fifth of the time. A graph is traced in one piece.
    """
    if embeddings.device.type != "cpu" or torch.compiler.is_compiling() or len(embeddings) == 0:
        return closed_form_influence(embeddings, gather(indices), duplicate_distance)
    rows = max(1, _BLOCK_VALUES // (indices.shape[1] * embeddings.shape[1]))
    parts = (slice(start, start + rows) for start in range(0, len(embeddings), rows))
    blocks = [
        closed_form_influence(embeddings[part], gather(indices[part]), duplicate_distance)
        for part in parts
    ]
    return Influence(
        torch.cat([block.distances for block in blocks]),
        torch.cat([block.mean_distance for block in blocks]),
        torch.cat([block.jacobian for block in blocks]),
    )


class AdaptiveNoise(nn.Module):
    """Noise level per patch and channel: sigma ``[N, D]`` in (0.01, 0.5).

    The channels that move the distance most, in the patches that lie farthest, get most noise.
    The distance is normalised by frozen statistics of held-out normal patches, so that a frame's
    score never depends on the other frames of its batch.

    Raises:
        ConfigurationError: the statistics are not finite or the deviation is negative.
    """

    def __init__(self, statistics: DistanceStatistics) -> None:
        super().__init__()
        mean, std = torch.tensor(statistics.mean), torch.tensor(statistics.std)
        if not (mean.isfinite() and std.isfinite() and std >= 0):
            raise ConfigurationError(f"distance statistics are {statistics}, expected finite ones")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp_min(1e-6))

    def forward(self, influence: Influence) -> Tensor:
        """Sigma ``[N, D]``."""
        gate = (influence.mean_distance - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        level = _zscore(influence.jacobian.abs()) + DISTANCE_GATE * gate.unsqueeze(1)
        return SIGMA_MIN + (SIGMA_MAX - SIGMA_MIN) * torch.sigmoid(level)


def noise_response(sigma: Tensor, jacobian: Tensor) -> Tensor:
    """||sigma * J||_2 ``[N]``: to first order, how much noise of that level moves the distance.

    It is the standard deviation of the mean distance when z is disturbed by N(0, diag sigma^2).
    """
    return _norm(sigma * jacobian, dim=1)


def _norm(values: Tensor, dim: int) -> Tensor:
    # One operation in the graph (ReduceL2), where square, sum and root would be three.
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim)
    return norm


def _zscore(values: Tensor) -> Tensor:
    centered = values - values.mean(1, keepdim=True)
    deviation = (centered * centered).mean(1, keepdim=True).sqrt()
    return centered / deviation.clamp_min(_TINY)
