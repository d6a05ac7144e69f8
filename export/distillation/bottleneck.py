"""Multi-scale fusion and one-class embedding (Deng & Li, CVPR 2022, section 3.3).

The three scales are brought to the coarsest by 3x3 convolutions of stride 2, joined and reduced
by a 1x1 convolution; a stage like the teacher's layer 4 then makes the compact embedding through
which only what is normal is learned to pass. The 1x1 convolution is the paper's; the authors' code
has none and lets the stage's first block take the joined channels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from patchline.export.distillation.residual import initialize, spatial, stage
from patchline.export.distillation.teacher import BASE_CHANNELS, Architecture

Features = tuple[Tensor, Tensor, Tensor]
"""Layers 1 to 3 ``[B, C, h, w]`` at 1/4, 1/8 and 1/16 of the frame."""


class Bottleneck(nn.Module):
    """Layers 1 to 3 -> the one-class embedding ``[B, C4, H / 32, W / 32]``.

    Args:
        architecture: of the teacher.
        width_per_group: of the stage's blocks.
    """

    def __init__(self, architecture: Architecture, width_per_group: int) -> None:
        super().__init__()
        fine, middle, coarse, _ = architecture.channels
        self.fine = nn.Sequential(*_halved(fine, middle), *_halved(middle, coarse))
        self.middle = nn.Sequential(*_halved(middle, coarse))
        self.reduce = nn.Sequential(
            nn.Conv2d(3 * coarse, coarse, 1, bias=False),
            nn.BatchNorm2d(coarse),
            nn.ReLU(inplace=True),
        )
        self.embed = stage(
            architecture.block,
            architecture.blocks[3],
            coarse,
            BASE_CHANNELS[3],
            "half",
            width_per_group,
        )
        initialize(self)

    def forward(self, features: Features) -> Tensor:
        """Embed features; see the class."""
        fine, middle, coarse = features
        joined = torch.cat([self.fine(fine), self.middle(middle), coarse], dim=1)
        return cast(Tensor, self.embed(self.reduce(joined)))


def _halved(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (*spatial(in_channels, out_channels, "half"), nn.ReLU(inplace=True))
