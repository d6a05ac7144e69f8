"""The distilled detector beside slow references: cosines, maps, scores, influence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from patchline.export.distillation.detector import (
    NEUTRAL,
    DistilledDetector,
    cosine_distance,
)
from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.half import half_distilled
from patchline.runtime.contract import ModelSize
from patchline.runtime.preprocess import Frame

SIZE = ModelSize(height=64, width=96)
GRIDS = ((16, 24), (8, 12), (4, 6))
CHANNELS = (4, 6, 8)

Features = tuple[Tensor, ...]


class GivenFeatures(nn.Module):
    """Stands in for teacher and student: gives features that were made beforehand."""

    def __init__(self, teacher: Features, student: Features) -> None:
        super().__init__()
        self.size, self.grids = SIZE, GRIDS
        self.teacher, self.student = teacher, student

    def teacher_features(self, frames: Tensor) -> Features:
        return tuple(scale[: len(frames)] for scale in self.teacher)

    def reconstruct(self, features: Features) -> Features:
        return tuple(scale[: len(features[0])] for scale in self.student)


def drawn_features(seed: int, images: int = 3) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(images, channels, *grid, generator=generator)
        for channels, grid in zip(CHANNELS, GRIDS, strict=True)
    )


def judged(teacher: Features, student: Features) -> tuple[np.ndarray, ...]:
    detector = DistilledDetector(GivenFeatures(teacher, student))  # type: ignore[arg-type]
    frames = torch.zeros(len(teacher[0]), SIZE.height, SIZE.width, 3, dtype=torch.uint8)
    return tuple(output.numpy() for output in detector.predict(frames))


def slow_map(teacher: Tensor, student: Tensor) -> np.ndarray:
    """One scale's map in float64: cosine, interpolation, and SciPy's Gaussian."""
    distance = 1 - F.cosine_similarity(teacher.double(), student.double(), dim=1)
    size = (SIZE.height, SIZE.width)
    pixels = F.interpolate(distance[:, None], size=size, mode="bilinear", align_corners=False)
    sigmas = [4 * side / 256 for side in size]
    return np.stack(
        [ndimage.gaussian_filter(one, sigmas, mode="mirror", truncate=4) for one in pixels[:, 0]]
    )


class TestCosineDistance:
    def test_it_is_that_of_torch(self) -> None:
        teacher, student = drawn_features(0)[2], drawn_features(1)[2]
        expected = 1 - F.cosine_similarity(teacher.double(), student.double(), dim=1)
        np.testing.assert_allclose(cosine_distance(teacher, student), expected, atol=1e-6)

    def test_direction_alone_counts(self) -> None:
        teacher = drawn_features(0)[0]
        for factor, expected in ((3.0, 0.0), (-0.5, 2.0)):
            distance = cosine_distance(teacher, factor * teacher)
            np.testing.assert_allclose(distance, expected, atol=1e-6)

    def test_a_vector_of_zeros_is_at_right_angles_to_all(self) -> None:
        some = drawn_features(0)[0]
        for pair in ((some, 0 * some), (0 * some, some), (0 * some, 0 * some)):
            assert (cosine_distance(*pair) == 1).all()

    def test_half_precision_is_compared_in_float32(self) -> None:
        large = 300 * drawn_features(0)[2].half()  # whose squares pass 65504
        distance = cosine_distance(large, large)
        assert distance.dtype == torch.float32
        np.testing.assert_allclose(distance, 0, atol=1e-6)


class TestOutputs:
    def test_the_map_is_the_sum_over_the_scales_and_the_score_its_largest_value(self) -> None:
        teacher, student = drawn_features(0), drawn_features(1)
        score, anomaly_map, _ = judged(teacher, student)
        expected = sum(slow_map(*pair) for pair in zip(teacher, student, strict=True))
        np.testing.assert_allclose(anomaly_map, expected, atol=2e-6)
        np.testing.assert_array_equal(score, anomaly_map.max((1, 2)))

    def test_the_influence_is_the_share_of_the_fine_scales(self) -> None:
        teacher, student = drawn_features(0), drawn_features(1)
        fine, middle, coarse = (slow_map(*pair) for pair in zip(teacher, student, strict=True))
        expected = (fine + 0.5 * middle) / (fine + middle + coarse)
        np.testing.assert_allclose(judged(teacher, student)[2], expected, atol=2e-3)

    @pytest.mark.parametrize(("scale", "expected"), [(0, 1.0), (1, 0.5), (2, 0.0)])
    def test_one_scale_alone_says_how_fine_the_difference_is(
        self, scale: int, expected: float
    ) -> None:
        teacher = drawn_features(0)
        student = tuple(-one if i == scale else one for i, one in enumerate(teacher))
        _, anomaly_map, influence = judged(teacher, student)
        np.testing.assert_allclose(anomaly_map, 2, atol=1e-5)
        np.testing.assert_allclose(influence, expected, atol=1e-3)

    def test_a_perfect_student_finds_nothing_and_blames_no_scale(self) -> None:
        teacher = drawn_features(0)
        score, _, influence = judged(teacher, teacher)
        np.testing.assert_allclose(score, 0, atol=1e-5)
        np.testing.assert_allclose(influence, NEUTRAL, atol=1e-2)

    def test_the_influence_lies_in_0_to_1(self) -> None:
        for seed in range(3):
            influence = judged(drawn_features(seed), drawn_features(seed + 9))[2]
            assert influence.min() >= 0 and influence.max() <= 1


class TestModel:
    def test_frames_are_judged_one_by_one(
        self, distilled: DistilledModel, seven_frames: Frame
    ) -> None:
        frames = torch.from_numpy(seven_frames)
        together = distilled.detector.predict(frames)
        for i, frame in enumerate(frames):
            for output, single in zip(
                together, distilled.detector.predict(frame[None]), strict=True
            ):
                np.testing.assert_allclose(output[i], single[0], rtol=1e-5, atol=1e-6)

    def test_it_is_frozen_and_in_evaluation_mode(self, distilled: DistilledModel) -> None:
        parts = list(distilled.detector.modules())
        assert not any(part.training for part in parts)
        assert not any(p.requires_grad for p in distilled.detector.parameters())

    def test_in_half_precision_it_judges_as_before(
        self, distilled: DistilledModel, seven_frames: Frame
    ) -> None:
        frames = torch.from_numpy(seven_frames)
        before = distilled.detector.predict(frames)
        half = half_distilled(distilled.detector)
        after = half.predict(frames)
        assert {output.dtype for output in after} == {torch.float32}
        for old, new in zip(before, after, strict=True):
            np.testing.assert_allclose(new, old, rtol=0.02, atol=0.01)
        assert not torch.equal(after[0], before[0])
        kinds = {p.dtype for p in distilled.detector.parameters()}
        assert kinds == {torch.float32}  # the one it came from is left alone
        assert {p.dtype for p in half.parameters()} == {torch.float16}
