"""The cosine loss beside numpy in float64, and what it refuses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from patchline.export.distillation.loss import cosine_loss

SHAPES = [(3, 4, 8, 6), (3, 8, 4, 3), (3, 16, 2, 2)]


def draw(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).add(0.5).to(dtype) for shape in SHAPES]


def reference(
    teacher: list[Tensor], student: list[Tensor]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Scale by scale, picture by picture, one long vector each."""
    scales = np.zeros(len(teacher))
    for at, (one, other) in enumerate(zip(teacher, student, strict=True)):
        for a, b in zip(one.double().numpy(), other.double().numpy(), strict=True):
            a, b = a.ravel(), b.ravel()
            scales[at] += (1 - a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))) / len(one)
    return float(scales.sum()), scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_one_minus_the_cosine_of_flattened_features(dtype: torch.dtype) -> None:
    teacher, student = draw(1, dtype), draw(2, dtype)
    total, scales = cosine_loss(teacher, student)
    expected, expected_scales = reference(teacher, student)
    assert total.dtype == torch.float32
    assert total.shape == ()
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert [float(scale) for scale in scales] == pytest.approx(expected_scales, rel=1e-5)


def test_flattening_is_not_averaging_over_positions() -> None:
    teacher = [torch.tensor([1.0, 0.0, 0.0, 100.0]).view(1, 2, 1, 2)]
    student = [torch.tensor([0.0, 0.0, 1.0, 100.0]).view(1, 2, 1, 2)]
    # Two positions, (1, 0) against (0, 1) and (0, 100) against (0, 100): 0.5 if averaged.
    assert float(cosine_loss(teacher, student)[0]) == pytest.approx(1e-4, rel=0.01)


def test_equal_features_cost_nothing_and_opposite_ones_most() -> None:
    teacher = draw(3)
    assert float(cosine_loss(teacher, [2 * scale for scale in teacher])[0]) == pytest.approx(
        0, abs=1e-6
    )
    assert float(cosine_loss(teacher, [-scale for scale in teacher])[0]) == pytest.approx(6)


def test_zeros_have_a_finite_loss_and_gradient() -> None:
    student = [torch.zeros(shape, requires_grad=True) for shape in SHAPES]
    total, _ = cosine_loss(draw(4), student)
    total.backward()
    assert float(total.detach()) == 3
    assert all(scale.grad is not None and bool(scale.grad.isfinite().all()) for scale in student)


def test_features_that_cannot_be_compared_are_refused() -> None:
    teacher = draw(5)
    with pytest.raises(ValueError, match="cannot be compared"):
        cosine_loss(teacher, teacher[:2])
    with pytest.raises(ValueError, match="cannot be compared"):
        cosine_loss(teacher, [*teacher[:2], teacher[2].flatten(2)])
    with pytest.raises(ValueError, match="cannot be compared"):
        cosine_loss([], [])
