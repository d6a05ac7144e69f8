"""Patch grid -> smoothed pixel map as two small matrices, ``A_h P A_w^T`` (DESIGN section 3).

Bilinear upsampling and Gaussian smoothing are linear and separable, so their product along each
axis is one constant matrix: the same numbers as upsampling and a dense 33 x 33 convolution.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from patchline.runtime.contract import ModelSize

SIGMA_SHARE = 4 / 256
"""Standard deviation of the Gaussian as a share of the side: 4 px at 256."""

_TRUNCATE = 4.0  # radius in standard deviations, as scipy and PatchCore have it

_Matrix = npt.NDArray[np.float64]


class GridToMap(nn.Module):
    """Values ``[B, h, w]`` on the patch grid -> values per pixel ``[B, H, W]``.

    Args:
        grid: height and width of the patch grid.
        size: height and width of the frames in pixels.
        smooth: whether the Gaussian follows the upsampling.
    """

    def __init__(self, grid: tuple[int, int], size: ModelSize, *, smooth: bool) -> None:
        super().__init__()
        self.register_buffer("rows", _axis(grid[0], size.height, smooth))
        self.register_buffer("columns", _axis(grid[1], size.width, smooth).t().contiguous())

    def forward(self, values: Tensor) -> Tensor:
        """Map ``[B, h, w]`` to ``[B, H, W]``."""
        return cast(Tensor, self.rows) @ values @ cast(Tensor, self.columns)


def _axis(cells: int, pixels: int, smooth: bool) -> Tensor:
    matrix = upsampling_matrix(cells, pixels)
    if smooth:
        matrix = gaussian_matrix(pixels, SIGMA_SHARE * pixels) @ matrix
    return torch.from_numpy(matrix).to(torch.float32)


def upsampling_matrix(cells: int, pixels: int) -> _Matrix:
    """Bilinear interpolation ``[pixels, cells]``, half-pixel centers, clamped at the border."""
    position = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    position = position.clip(0, cells - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, cells - 1)
    share = position - lower
    matrix = np.zeros((pixels, cells))
    at = np.arange(pixels)
    np.add.at(matrix, (at, lower), 1 - share)
    np.add.at(matrix, (at, upper), share)
    return matrix


def gaussian_matrix(pixels: int, sigma_px: float) -> _Matrix:
    """Gaussian smoothing ``[pixels, pixels]``, mirrored at the border without the edge pixel."""
    radius = int(_TRUNCATE * sigma_px + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    taps /= taps.sum()
    source = np.pad(np.arange(pixels), radius, mode="reflect")
    matrix = np.zeros((pixels, pixels))
    for offset, tap in enumerate(taps):
        np.add.at(matrix, (np.arange(pixels), source[offset : offset + pixels]), tap)
    return matrix
