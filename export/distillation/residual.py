"""Residual blocks that keep, halve or double the grid (He et al. 2016; Deng & Li, CVPR 2022).

The student mirrors its teacher: where a teacher's block halves the grid by a convolution of
stride 2, the student's doubles it by a transposed 2x2 convolution of stride 2, in the block as in
its shortcut.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

Grid = Literal["same", "half", "double"]
"""What becomes of the grid."""

_PLAIN_WIDTH = 64  # a width_per_group at which a block's middle is as wide as its name says


class Block(nn.Module):
    """A residual block ``[B, in_channels, h, w]`` -> ``[B, base * expansion, h', w']``.

    Args:
        in_channels: of its input.
        base: channels before the expansion.
        grid: what becomes of height and width.
        width_per_group: as in torchvision; its middle has ``base * width_per_group / 64`` channels.
    """

    expansion: ClassVar[int]
    has_width: ClassVar[bool]

    def __init__(self, in_channels: int, base: int, grid: Grid, width_per_group: int) -> None:
        super().__init__()
        out_channels = base * self.expansion
        self.shortcut: nn.Module = nn.Identity()
        if grid != "same" or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                _pointwise(in_channels, out_channels, grid), nn.BatchNorm2d(out_channels)
            )
        width = base * width_per_group // _PLAIN_WIDTH
        self.residual = self._residual(in_channels, width, out_channels, grid)
        self.activation = nn.ReLU(inplace=True)

    @staticmethod
    @abstractmethod
    def _residual(in_channels: int, width: int, out_channels: int, grid: Grid) -> nn.Module: ...

    def forward(self, features: Tensor) -> Tensor:
        """Transform ``[B, C, h, w]``."""
        activated: Tensor = self.activation(self.residual(features) + self.shortcut(features))
        return activated


class BasicBlock(Block):
    """Two 3x3 convolutions, as in ResNet-18."""

    expansion = 1
    has_width = False

    @staticmethod
    def _residual(in_channels: int, width: int, out_channels: int, grid: Grid) -> nn.Module:
        return nn.Sequential(
            *spatial(in_channels, width, grid),
            nn.ReLU(inplace=True),
            *spatial(width, out_channels, "same"),
        )


class BottleneckBlock(Block):
    """1x1, 3x3 and 1x1 convolutions, as in ResNet-50 and WideResNet-50."""

    expansion = 4
    has_width = True

    @staticmethod
    def _residual(in_channels: int, width: int, out_channels: int, grid: Grid) -> nn.Module:
        return nn.Sequential(
            _pointwise(in_channels, width, "same"),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *spatial(width, width, grid),
            nn.ReLU(inplace=True),
            _pointwise(width, out_channels, "same"),
            nn.BatchNorm2d(out_channels),
        )


def stage(
    block: type[Block], count: int, in_channels: int, base: int, grid: Grid, width_per_group: int
) -> nn.Sequential:
    """Residual blocks one after the other, of which the first changes grid and channels."""
    first = block(in_channels, base, grid, width_per_group)
    wide = base * block.expansion
    rest = (block(wide, base, "same", width_per_group) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def spatial(in_channels: int, out_channels: int, grid: Grid) -> tuple[nn.Module, nn.Module]:
    """A 3x3 convolution (2x2 transposed where the grid doubles) and its batch norm."""
    convolution: nn.Module
    if grid == "double":
        convolution = _double(in_channels, out_channels)
    else:
        stride = 2 if grid == "half" else 1
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels)


def initialize(network: nn.Module) -> None:
    """Draw fresh weights as ResNets do (Kaiming, by the fan out); norms start at 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _pointwise(in_channels: int, out_channels: int, grid: Grid) -> nn.Module:
    if grid == "double":
        return _double(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 1, 2 if grid == "half" else 1, bias=False)


def _double(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
