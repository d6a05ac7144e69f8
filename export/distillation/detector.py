"""The distilled model as one module: uint8 frames in, the contract's three outputs out.

Deng & Li, CVPR 2022, section 3.3: the map sums, over three scales, one minus the cosine of teacher
and student at each position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchline.export.anomaly_map import GridToMap
from patchline.export.detector import Outputs
from patchline.export.distillation.networks import ReverseDistillation

NEUTRAL = 0.5
"""The influence where no scale differs, or all by as much."""

FLAT = 1e-3
"""Differences of about this size, of 6 at most, draw the influence to :data:`NEUTRAL`.

Far below it they are rounding, which no two runtimes share.
"""

_TINY = 1e-8


class DistilledDetector(nn.Module):
    """uint8 ``[B, H, W, 3]`` BGR frames -> the contract's three outputs.

    The anomaly map is the sum of the smoothed maps of the three scales, and the image score its
    largest value. The influence map says how fine the difference is: 1 where the finest scale alone
    makes the anomaly map (grain, a scratch), 0 where the coarsest alone does (a shape, a part that
    is missing), :data:`NEUTRAL` where both have the same share.

    Args:
        model: trained; it is put into evaluation mode and frozen.
    """

    def __init__(self, model: ReverseDistillation) -> None:
        super().__init__()
        self.model = model
        self.to_map = nn.ModuleList(
            GridToMap(grid, model.size, smooth=True) for grid in model.grids
        )
        self.requires_grad_(False).eval()

    def forward(self, frames: Tensor) -> Outputs:
        """Judge frames; see the class."""
        features = self.model.teacher_features(frames)
        rebuilt = self.model.reconstruct(features)
        fine, middle, coarse = (
            to_map(cosine_distance(teacher, student))
            for to_map, teacher, student in zip(self.to_map, features, rebuilt, strict=True)
        )
        anomaly_map = fine + middle + coarse
        fineness = (fine + NEUTRAL * (middle + FLAT)) / (anomaly_map + FLAT)
        # Each map is at most rounding below 0.
        return anomaly_map.amax((1, 2)), anomaly_map, fineness.clamp(0, 1)

    @torch.inference_mode()
    def predict(self, frames: Tensor) -> Outputs:
        """Judge frames without gradients."""
        outputs: Outputs = self(frames)
        return outputs


def cosine_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """One minus the cosine over the channels of ``[B, C, h, w]``: ``[B, h, w]``, 0 to 2.

    Computed in float32, whatever the features are. A vector of zeros has the cosine 0 with any.
    """
    teacher, student = teacher.float(), student.float()
    norms = torch.linalg.vector_norm(teacher, dim=1) * torch.linalg.vector_norm(student, dim=1)
    distance: Tensor = 1 - (teacher * student).sum(1) / norms.clamp_min(_TINY)
    return distance
