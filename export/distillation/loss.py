"""Cosine loss over the three scales (Deng & Li, CVPR 2022, equation 2, as in the authors' code)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_WEIGHT = 1.0
"""Lambda: what each scale weighs."""


def cosine_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One minus the cosine of both networks' features, each scale of an image as one long vector.

    Computed in float32, whatever the features are. A vector of zeros has the cosine 0 with any.

    Args:
        teacher: per scale ``[B, C, h, w]``.
        student: likewise, in the same shapes.

    Returns:
        The sum over the scales, a scalar, and per scale the mean over the batch, 0 to 2.

    Raises:
        ValueError: another number of scales, or other shapes.
    """
    shapes = [[tuple(scale.shape) for scale in features] for features in (teacher, student)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise ValueError(f"features of {shapes[0]} cannot be compared with {shapes[1]}")
    scales = tuple(_distance(*pair) for pair in zip(teacher, student, strict=True))
    return SCALE_WEIGHT * torch.stack(scales).sum(), scales


def _distance(teacher: Tensor, student: Tensor) -> Tensor:
    cosine = F.cosine_similarity(teacher.float().flatten(1), student.float().flatten(1), dim=1)
    return (1 - cosine).mean()
