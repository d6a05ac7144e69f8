"""The fitted model as one module: uint8 frames in, the contract's three outputs out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchline.export.anomaly_map import GridToMap
from patchline.export.backbone import PatchEmbedder
from patchline.export.influence import AdaptiveNoise, Influence, influence_of_rows
from patchline.export.neighbors import SEARCHES
from patchline.export.scores import Patches, create_score
from patchline.runtime.contract import BankPrecision, DistanceStatistics, ModelSize

DUPLICATE_SHARE = 1e-4
"""Neighbours nearer than this share of a bank row's mean norm count as the patch itself.

Two runtimes' float32 backbones differ by about a tenth of that, so below it a direction is noise.
"""

Outputs = tuple[Tensor, Tensor, Tensor]
"""``image_score [B]``, ``anomaly_map [B, H, W]``, ``influence_map [B, H, W]``, float32."""


class AnomalyHead(nn.Module):
    """Patch embeddings ``[B, h, w, D]`` -> the contract's three outputs.

    Args:
        memory_bank: float32 ``[M, D]``, coreset of good patches.
        statistics: of the mean distance of held-out normal patches.
        grid: height and width of the patch grid.
        size: height and width of the frames in pixels.
        score: name of the score function.
        neighbors: k.
        bank_precision: how the bank is stored and searched; distances are float32 always.
        duplicate_share: neighbours nearer than this share of a row's mean norm count as the patch.

    Raises:
        ConfigurationError: an unknown score, or a bank or statistics that cannot be.
    """

    def __init__(
        self,
        memory_bank: Tensor,
        statistics: DistanceStatistics,
        grid: tuple[int, int],
        size: ModelSize,
        *,
        score: str,
        neighbors: int,
        bank_precision: BankPrecision = "fp32",
        duplicate_share: float = DUPLICATE_SHARE,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.score_name = score
        self.bank_precision = bank_precision
        self.search = SEARCHES[bank_precision](memory_bank, neighbors)
        self.noise = AdaptiveNoise(statistics)
        self.score = create_score(score, self.search)
        self.to_anomaly_map = GridToMap(grid, size, smooth=True)
        self.to_influence_map = GridToMap(grid, size, smooth=False)
        self.mean_norm = float(memory_bank.norm(dim=1).mean())
        self.register_buffer("duplicate_distance", torch.tensor(duplicate_share * self.mean_norm))

    def forward(self, embeddings: Tensor) -> Outputs:
        """Judge embeddings ``[B, h, w, D]``; see the class."""
        return self.judge(embeddings, self.search(embeddings.flatten(0, 2)))

    def judge(self, embeddings: Tensor, indices: Tensor) -> Outputs:
        """Judge embeddings whose neighbours ``[B * h * w, k]`` are known already."""
        images, height, width, _ = embeddings.shape
        patches = self.patches(embeddings.flatten(0, 2), indices)
        scores = self.score.patch_scores(patches).view(images, height, width)
        anomaly_map = self.to_anomaly_map(scores)
        image_score = self.score.image_scores(scores.flatten(1), anomaly_map, patches)
        influence = patches.influence.norm.view(images, height, width)
        return image_score, anomaly_map, self.to_influence_map(influence)

    def patches(self, rows: Tensor, indices: Tensor) -> Patches:
        """What the score needs for patches ``[N, D]`` with neighbours ``[N, k]``."""
        influence = self.influence(rows, indices)
        return Patches(rows, indices, influence, self.noise(influence))

    def influence(self, rows: Tensor, indices: Tensor) -> Influence:
        """Distances and Jacobian for patches ``[N, D]`` with neighbours ``[N, k]``."""
        duplicate_distance = self.get_buffer("duplicate_distance")
        return influence_of_rows(rows, self.search.gather, indices, duplicate_distance)


class Detector(nn.Module):
    """uint8 ``[B, H, W, 3]`` BGR frames -> the contract's three outputs."""

    def __init__(self, embedder: PatchEmbedder, head: AnomalyHead) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = head
        self.eval()

    def forward(self, frames: Tensor) -> Outputs:
        """Judge frames; see the class."""
        outputs: Outputs = self.head(self.embedder(frames))
        return outputs

    @torch.inference_mode()
    def predict(self, frames: Tensor) -> Outputs:
        """Judge frames without gradients."""
        outputs: Outputs = self(frames)
        return outputs
