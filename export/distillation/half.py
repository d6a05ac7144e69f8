"""A distilled model in half precision: teacher, bottleneck and student (DESIGN section 5).

It is made in torch, before the export, as for models with a memory bank. Frames stay uint8 and
outputs float32; normalisation, cosines and maps are float32 as ever.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from patchline.export.distillation.detector import DistilledDetector


class _HalfInput(nn.Module):
    """A network in half precision behind a cast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Normalised frames float32 ``[B, 3, H, W]`` -> feature maps in half precision."""
        features: list[Tensor] = self.network(frames.half())
        return features


def half_distilled(detector: DistilledDetector) -> DistilledDetector:
    """The same model with its networks in half precision.

    Args:
        detector: in float32, on the CPU; it is left alone.
    """
    model = copy.deepcopy(detector.model)
    model.teacher = _HalfInput(model.teacher)
    model.bottleneck.half()
    model.student.half()
    return DistilledDetector(model)
