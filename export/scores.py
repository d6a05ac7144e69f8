"""Score functions by name (DESIGN section 3): patches -> patch scores -> one image score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from patchline.export.influence import Influence, noise_response
from patchline.export.neighbors import NearestNeighbors
from patchline.runtime.errors import ConfigurationError

REWEIGHTING_NEIGHBORS = 9
"""b of the PatchCore paper, equation 7."""


@dataclass(frozen=True)
class Patches:
    """What a score may use, for B frames of P patches (N = B * P).

    Attributes:
        embeddings: ``[N, D]``.
        indices: int64 ``[N, k]``, rows of the bank, nearest first.
        influence: distances and Jacobian.
        sigma: ``[N, D]``, adaptive noise.
    """

    embeddings: Tensor
    indices: Tensor
    influence: Influence
    sigma: Tensor


class Score(nn.Module):
    """A way to score patches, and images by the largest value of their smoothed map."""

    def __init__(self, search: NearestNeighbors) -> None:
        """Args: search: the bank that the patches are compared with."""
        super().__init__()

    def patch_scores(self, patches: Patches) -> Tensor:
        """Score per patch, ``[N]``, larger is more anomalous."""
        raise NotImplementedError

    def image_scores(self, patch_scores: Tensor, anomaly_map: Tensor, patches: Patches) -> Tensor:
        """Score per image, ``[B]``, from patch scores ``[B, P]`` and the map ``[B, H, W]``."""
        return anomaly_map.amax((1, 2))


class Distance(Score):
    """d_1, the distance to the nearest normal patch."""

    def patch_scores(self, patches: Patches) -> Tensor:
        """``[N]``; see the class."""
        return patches.influence.distances[:, 0]


class PatchCore(Distance):
    """d_1, with the image score re-weighted as in the PatchCore paper (equation 7, b = 9)."""

    def __init__(self, search: NearestNeighbors) -> None:
        super().__init__(search)
        self.search = search
        self.register_buffer("around", _neighbors_of_rows(search))

    def image_scores(self, patch_scores: Tensor, anomaly_map: Tensor, patches: Patches) -> Tensor:
        """``[B]``: the largest patch score, less where its neighbourhood is sparse anyway."""
        images, count = patch_scores.shape
        score, worst = patch_scores.max(1)
        row = worst + torch.arange(images, device=worst.device) * count
        around = cast(Tensor, self.around)[patches.indices[row, 0]]
        offsets = patches.embeddings[row].unsqueeze(1) - self.search.gather(around)
        distances = offsets.square().sum(2).sqrt()
        # exp(score) over the sum of exp(distances), without overflow.
        weight = torch.exp(score - distances.logsumexp(1))
        return (1 - weight) * score


class WeightedSum(Score):
    """0.4 mean|J| + 0.4 d_mean + 0.2 mean sigma: the form of the research code."""

    def patch_scores(self, patches: Patches) -> Tensor:
        """``[N]``; see the class."""
        influence = patches.influence
        return (
            0.4 * influence.jacobian.abs().mean(1)
            + 0.4 * influence.mean_distance
            + 0.2 * patches.sigma.mean(1)
        )

    def image_scores(self, patch_scores: Tensor, anomaly_map: Tensor, patches: Patches) -> Tensor:
        """``[B]``: the largest patch score."""
        return patch_scores.amax(1)


class NoiseResponse(Score):
    """d_1 * ||sigma * J||: magnitude of the nearest distance, direction of all k."""

    def patch_scores(self, patches: Patches) -> Tensor:
        """``[N]``; see the class."""
        response = noise_response(patches.sigma, patches.influence.jacobian)
        return patches.influence.distances[:, 0] * response


SCORES: dict[str, type[Score]] = {
    "distance": Distance,
    "patchcore": PatchCore,
    "weighted-sum": WeightedSum,
    "noise-response": NoiseResponse,
}
DEFAULT_SCORE = "noise-response"


def create_score(name: str, search: NearestNeighbors) -> Score:
    """Make a score by name.

    Raises:
        ConfigurationError: there is none of that name (says which there are).
    """
    if name not in SCORES:
        raise ConfigurationError(f"score is {name!r}, expected one of: {', '.join(SCORES)}")
    return SCORES[name](search)


def _neighbors_of_rows(search: NearestNeighbors) -> Tensor:
    """The nearest bank rows of every bank row, itself first: int64 ``[M', b]``."""
    bank = cast(Tensor, search.bank).float()  # as stored, whatever its precision
    finder = NearestNeighbors(bank[: search.rows], REWEIGHTING_NEIGHBORS)
    return torch.cat([finder(bank[start : start + 1024]) for start in range(0, len(bank), 1024)])
