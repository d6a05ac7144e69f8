"""Two small matrices give what upsampling and a dense Gaussian give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from patchline.export.anomaly_map import GridToMap, gaussian_matrix, upsampling_matrix
from patchline.runtime.contract import ModelSize

Values = npt.NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Values:
    return np.random.default_rng(seed).random(shape)


def upsampled(values: Values, size: tuple[int, int]) -> Values:
    """Bilinear, by torch: float64 [B, H, W]."""
    fine = F.interpolate(
        torch.from_numpy(values)[:, None], size, mode="bilinear", align_corners=False
    )
    result: Values = fine[:, 0].numpy()
    return result


def computed(
    values: Values, size: tuple[int, int], *, smooth: bool, dtype: torch.dtype = torch.float32
) -> Values:
    module = GridToMap(
        (values.shape[1], values.shape[2]), ModelSize(height=size[0], width=size[1]), smooth=smooth
    )
    result: Values = module.to(dtype)(torch.from_numpy(values).to(dtype)).numpy()
    return result


SHAPES = [
    ((32, 32), (256, 256)),
    ((8, 8), (64, 64)),
    ((12, 20), (96, 160)),
    ((7, 5), (50, 37)),  # no whole factor
    ((1, 1), (32, 32)),
    ((1, 6), (8, 48)),
    ((4, 4), (4, 4)),
    ((10, 10), (7, 3)),  # downwards
    ((3, 2), (1, 1)),
]


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_upsampling_is_torchs(grid: tuple[int, int], size: tuple[int, int]) -> None:
    values = draw(3, *grid)
    found = computed(values, size, smooth=False)
    assert found.shape == (3, *size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, upsampled(values, size), atol=1e-6)


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_the_smoothed_map_is_torchs_then_scipys(
    grid: tuple[int, int], size: tuple[int, int]
) -> None:
    """sigma is 4 px per 256 along each side."""
    values = draw(2, *grid, seed=1)
    sigmas = (size[0] * 4 / 256, size[1] * 4 / 256)
    found = computed(values, size, smooth=True)
    for at, fine in enumerate(upsampled(values, size)):
        expected = gaussian_filter(fine, sigmas, mode="mirror", truncate=4)
        np.testing.assert_allclose(found[at], expected, atol=2e-6)


def test_at_256_it_is_a_dense_33_by_33_convolution() -> None:
    values = draw(1, 32, 32, seed=2)
    taps = np.exp(-0.5 * (np.arange(-16, 17) / 4.0) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    fine = torch.from_numpy(upsampled(values, (256, 256)))[None]
    padded = F.pad(fine, (16, 16, 16, 16), mode="reflect")
    expected = F.conv2d(padded, torch.from_numpy(kernel)[None, None])[0].numpy()
    np.testing.assert_allclose(computed(values, (256, 256), smooth=True), expected, atol=2e-6)
    exact = computed(values, (256, 256), smooth=True, dtype=torch.float64)
    np.testing.assert_allclose(exact, expected, atol=2e-7)  # the matrices are kept in float32


def test_height_and_width_are_not_swapped() -> None:
    values = np.zeros((1, 4, 8))
    values[0, 3, 0] = 1.0
    found = computed(values, (32, 64), smooth=True)[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert row >= 28
    assert column < 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90))
def test_upsampling_is_an_average(cells: int, pixels: int) -> None:
    matrix = upsampling_matrix(cells, pixels)
    assert matrix.shape == (pixels, cells)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 40))
def test_the_gaussian_is_scipys_even_where_it_is_wider_than_the_side(
    pixels: int, sigma_px: float
) -> None:
    matrix = gaussian_matrix(pixels, sigma_px)
    assert matrix.shape == (pixels, pixels)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    line = draw(pixels, seed=pixels)
    expected = gaussian_filter1d(line, sigma_px, mode="mirror", truncate=4)
    np.testing.assert_allclose(matrix @ line, expected, atol=1e-12)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_a_constant_stays_constant(
    grid: tuple[int, int], size: tuple[int, int], smooth: bool
) -> None:
    found = computed(np.full((1, *grid), 3.5), size, smooth=smooth)
    np.testing.assert_allclose(found, 3.5, rtol=1e-6)


def test_the_map_never_leaves_the_range_of_the_patches() -> None:
    values = draw(4, 9, 6, seed=3)
    found = computed(values, (70, 50), smooth=True)
    assert (found >= values.min((1, 2), keepdims=True) - 1e-6).all()
    assert (found <= values.max((1, 2), keepdims=True) + 1e-6).all()


def test_a_map_does_not_depend_on_its_batch() -> None:
    values = draw(5, 8, 8, seed=4)
    together = computed(values, (64, 64), smooth=True)
    for at in range(5):
        alone = computed(values[at : at + 1], (64, 64), smooth=True)
        np.testing.assert_allclose(alone[0], together[at], rtol=1e-6)
