"""Adaptive noise for the features that enter the bottleneck (DESIGN section 3), per scale.

Before the training a memory bank per scale is chosen from the good pictures. In training each
patch of the teacher's features is disturbed by N(0, diag sigma^2), sigma in the range of the
settings by the same rule as in the detector: the channels that move the distance to the bank most,
in the patches that lie farthest, get most noise. Sigma counts in standard deviations of the
channel over the good pictures, so that one range serves every layer of every teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patchline.export.detector import DUPLICATE_SHARE
from patchline.export.distillation.bottleneck import Features
from patchline.export.influence import SIGMA_MAX, SIGMA_MIN, AdaptiveNoise, influence_of_rows
from patchline.export.neighbors import NearestNeighbors
from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import ConfigurationError

NEIGHBORS = 9
"""k: neighbours in the mean distance and its Jacobian."""

_BLOCK_VALUES = 1 << 25
"""Of distances to bank rows, or of neighbours' features, at once: 128 MiB."""


@dataclass(frozen=True)
class ScaleBank:
    """What the noise of one scale is adapted with.

    Attributes:
        memory_bank: float32 ``[M, C]``, coreset of good patches.
        deviation: float32 ``[C]``, standard deviation of each channel over good patches.
        statistics: of the mean distance of good patches that the bank has not seen.
    """

    memory_bank: Tensor
    deviation: Tensor
    statistics: DistanceStatistics


@dataclass(frozen=True)
class NoiseSummary:
    """What a training's noise was, for the manifest.

    Attributes:
        smallest: of sigma, in standard deviations of the channel.
        largest: likewise.
        warmup_epochs: in which it rose.
        bank_rows: per scale, fine to coarse.
        statistics: of the mean distance, per scale.
    """

    smallest: float
    largest: float
    warmup_epochs: int
    bank_rows: tuple[int, ...]
    statistics: tuple[DistanceStatistics, ...]


class AdaptiveFeatureNoise(nn.Module):
    """Disturbs the teacher's features; nothing in it is trained.

    Args:
        banks: one per scale, fine to coarse.
        smallest: of sigma, in standard deviations of the channel.
        largest: likewise.

    Raises:
        ConfigurationError: the range is none, or a bank or its statistics are not finite.
    """

    def __init__(self, banks: Sequence[ScaleBank], *, smallest: float, largest: float) -> None:
        super().__init__()
        if not 0 <= smallest <= largest:
            raise ConfigurationError(
                f"the noise ranges from {smallest} to {largest}, expected 0 or more, and the "
                "smaller one first"
            )
        self.banks = tuple(banks)
        self.smallest, self.largest = smallest, largest
        self.scales = nn.ModuleList(_ScaleNoise(bank, smallest, largest) for bank in self.banks)

    @torch.no_grad()
    def sigma(self, features: Features) -> Features:
        """Standard deviation of the noise at full strength, shaped and in units as features."""
        # Distances cancel in half precision, whatever the networks run in.
        with torch.autocast(features[0].device.type, enabled=False):
            fine, middle, coarse = (
                scale(layer.float()) for scale, layer in zip(self.scales, features, strict=True)
            )
        return fine, middle, coarse

    @torch.no_grad()
    def disturb(self, features: Features, strength: float, generator: torch.Generator) -> Features:
        """Features with noise.

        Args:
            features: of the teacher, per scale ``[B, C, h, w]``.
            strength: factor of sigma, 0 to 1; with 0 the features come back as they are.
            generator: of the noise, on the device of the features.

        Raises:
            ConfigurationError: the strength is outside 0..1.
        """
        if not 0 <= strength <= 1:
            raise ConfigurationError(f"the noise's strength is {strength}, expected 0 to 1")
        if strength == 0:
            return features
        fine, middle, coarse = (
            layer.float() + strength * sigma * _normal(sigma, generator)
            for layer, sigma in zip(features, self.sigma(features), strict=True)
        )
        return fine, middle, coarse

    def summary(self, warmup_epochs: int) -> NoiseSummary:
        """The noise in figures."""
        return NoiseSummary(
            smallest=self.smallest,
            largest=self.largest,
            warmup_epochs=warmup_epochs,
            bank_rows=tuple(len(bank.memory_bank) for bank in self.banks),
            statistics=tuple(bank.statistics for bank in self.banks),
        )


class _ScaleNoise(nn.Module):
    """Features ``[B, C, h, w]`` of one scale -> sigma in the same shape."""

    def __init__(self, bank: ScaleBank, smallest: float, largest: float) -> None:
        super().__init__()
        self.search = NearestNeighbors(bank.memory_bank, NEIGHBORS)
        self.level = AdaptiveNoise(bank.statistics)
        self.smallest, self.largest = smallest, largest
        self.register_buffer("deviation", bank.deviation.view(1, -1, 1, 1))
        norm = bank.memory_bank.norm(dim=1).mean()
        self.register_buffer("duplicate_distance", DUPLICATE_SHARE * norm)

    def forward(self, features: Tensor) -> Tensor:
        images, channels, height, width = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
        level = torch.cat([self._level(part) for part in in_blocks(rows, self.search.rows)])
        shares = level.view(images, height, width, channels).permute(0, 3, 1, 2)
        sigma = self.smallest + (self.largest - self.smallest) * shares
        return sigma * self.get_buffer("deviation")

    def _level(self, rows: Tensor) -> Tensor:
        """Where in its range the noise of patches ``[N, C]`` lies, 0 to 1."""
        influence = influence_of_rows(
            rows, self.search.gather, self.search(rows), self.get_buffer("duplicate_distance")
        )
        sigma: Tensor = self.level(influence)
        return (sigma - SIGMA_MIN) / (SIGMA_MAX - SIGMA_MIN)


def in_blocks(rows: Tensor, bank_rows: int) -> tuple[Tensor, ...]:
    """Parts of ``[N, C]`` whose distances to a bank, and whose neighbours, are held at once."""
    values = max(bank_rows, NEIGHBORS * rows.shape[1])
    return torch.split(rows, max(1, _BLOCK_VALUES // values))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)
