"""The student: the teacher's layers 1 to 3 mirrored into a decoder (Deng & Li, CVPR 2022)."""

from __future__ import annotations

from torch import Tensor, nn

from patchline.export.distillation.bottleneck import Features
from patchline.export.distillation.residual import initialize, stage
from patchline.export.distillation.teacher import BASE_CHANNELS, Architecture


class Student(nn.Module):
    """One-class embedding ``[B, C4, H / 32, W / 32]`` -> what the teacher should have seen.

    Channels and grids are the teacher's in reverse. The number of blocks is that of the authors'
    code: as many in the stage next to the embedding as in the teacher's layer 1, and so on, which
    makes the student lighter than a mirror image.

    Args:
        architecture: of the teacher.
        width_per_group: of the blocks.
    """

    def __init__(self, architecture: Architecture, width_per_group: int) -> None:
        super().__init__()
        block, blocks, channels = architecture.block, architecture.blocks, architecture.channels
        self.coarse, self.middle, self.fine = (
            stage(block, count, wide, base, "double", width_per_group)
            for count, wide, base in zip(
                blocks[:3], channels[:0:-1], BASE_CHANNELS[2::-1], strict=True
            )
        )
        initialize(self)

    def forward(self, embedding: Tensor) -> Features:
        """Layers 1 to 3, fine to coarse, in the teacher's shapes."""
        coarse = self.coarse(embedding)
        middle = self.middle(coarse)
        return self.fine(middle), middle, coarse
