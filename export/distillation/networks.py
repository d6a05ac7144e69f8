"""Reverse distillation (Deng & Li, CVPR 2022): frozen teacher, bottleneck, student decoder.

"Anomaly Detection via Reverse Distillation from One-Class Embedding". The student rebuilds the
teacher's features from a compact embedding. Trained on good pictures alone, it cannot rebuild what
it never saw, and the difference is the anomaly.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from patchline.export.distillation.bottleneck import Bottleneck, Features
from patchline.export.distillation.student import Student
from patchline.export.distillation.teacher import (
    architecture_of,
    block_width,
    check_sides,
    load_teacher,
)
from patchline.export.weights import Weights
from patchline.runtime.contract import ModelSize

_REDUCTIONS = (4, 8, 16)


class ReverseDistillation(nn.Module):
    """uint8 frames ``[B, H, W, 3]`` BGR -> the teacher's features and the student's.

    The teacher is frozen and stays in evaluation mode, whatever :meth:`train` is told. Bottleneck
    and student start from weights drawn with ``seed``; the draw leaves torch's own generator as
    it was.

    Args:
        name: of the teacher: ``resnet18``, ``resnet50`` or ``wide_resnet50_2``.
        size: height and width of the frames in pixels, multiples of 32.
        weights: as for :func:`patchline.export.weights.load_weights`.
        width_per_group: of the student's blocks; ``None`` for its teacher's.
        seed: of bottleneck and student.

    Attributes:
        teacher: frozen timm features.
        bottleneck: features -> embedding.
        student: embedding -> features.
        weights: where the teacher's weights came from.
        layers: names of the teacher's layers, fine to coarse.
        grids: their heights and widths, fine to coarse.
        mean: of the teacher's input, per colour, in 0..1.
        std: likewise.

    Raises:
        ConfigurationError: another teacher, a width its blocks cannot have, or sides that are no
            multiples of 32.
        WeightsError: the weights cannot be loaded or do not fit.
    """

    def __init__(
        self,
        name: str,
        size: ModelSize,
        weights: str | None = None,
        *,
        width_per_group: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        architecture = architecture_of(name)
        check_sides(size)
        self.name, self.size = name, size
        self.width_per_group = block_width(name, width_per_group)
        self.grids = tuple((size.height // by, size.width // by) for by in _REDUCTIONS)
        with torch.random.fork_rng(devices=[]):
            teacher = load_teacher(name, weights)
            torch.manual_seed(seed)
            self.bottleneck = Bottleneck(architecture, self.width_per_group)
            self.student = Student(architecture, self.width_per_group)
        self.teacher = teacher.network
        self.weights: Weights = teacher.weights
        self.layers, self.mean, self.std = teacher.layers, teacher.mean, teacher.std
        # In the units of the frame (0 to 255), so that the graph needs no division by 255.
        scale = torch.tensor([1 / (255 * value) for value in self.std])
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)])
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    def forward(self, frames: Tensor) -> tuple[Features, Features]:
        """The teacher's features of frames, and what the student makes of them."""
        features = self.teacher_features(frames)
        return features, self.reconstruct(features)

    def teacher_features(self, frames: Tensor) -> Features:
        """Layers 1 to 3 of uint8 frames ``[B, H, W, 3]``, fine to coarse; without gradients."""
        fine, middle, coarse = self.teacher(self.normalize(frames))
        return fine, middle, coarse

    def reconstruct(self, features: Features) -> Features:
        """What the student makes of the teacher's features, in the same shapes."""
        rebuilt: Features = self.student(self.bottleneck(features))
        return rebuilt

    def normalize(self, frames: Tensor) -> Tensor:
        """uint8 ``[B, H, W, 3]`` BGR -> float32 ``[B, 3, H, W]`` RGB, as the teacher expects."""
        # The cast comes first: TensorRT refuses to transpose uint8 (DESIGN section 5).
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2).flip(1)
        return pixels * cast(Tensor, self.scale) + cast(Tensor, self.shift)

    def train(self, mode: bool = True) -> ReverseDistillation:
        """Put bottleneck and student into training mode; the teacher stays as it is."""
        super().train(mode)
        self.teacher.eval()
        return self
