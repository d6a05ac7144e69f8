"""The frozen teacher of reverse distillation: a ResNet's layers 1 to 3 (Deng & Li, CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

from patchline.export.distillation.residual import BasicBlock, Block, BottleneckBlock
from patchline.export.weights import Weights, load_weights
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError

SIDE_DIVISOR = 32
"""The embedding is a 32nd of the frame, and the student doubles it: sides must divide evenly."""

OUT_INDICES = (1, 2, 3)  # timm counts the stem as 0
BASE_CHANNELS = (64, 128, 256, 512)
"""Channels of layers 1 to 4, before the block's expansion."""

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Architecture:
    """What of a ResNet its student mirrors.

    Attributes:
        block: kind of its residual blocks.
        blocks: their number in layers 1 to 4.
        width_per_group: width of the blocks' middle convolution in layer 1.
    """

    block: type[Block]
    blocks: tuple[int, int, int, int]
    width_per_group: int

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels that layers 1 to 4 give."""
        one, two, three, four = (self.block.expansion * base for base in BASE_CHANNELS)
        return one, two, three, four


TEACHERS = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2), 64),
    "resnet50": Architecture(BottleneckBlock, (3, 4, 6, 3), 64),
    "wide_resnet50_2": Architecture(BottleneckBlock, (3, 4, 6, 3), 128),
}
"""Backbones that can teach, by their timm names."""


@dataclass(frozen=True)
class Teacher:
    """A backbone with its weights.

    Attributes:
        network: frozen, in evaluation mode; gives layers 1 to 3 at 1/4, 1/8 and 1/16.
        weights: where they came from.
        layers: names of the layers, fine to coarse.
        mean: of its input, per colour, in 0..1.
        std: likewise.
    """

    network: nn.Module
    weights: Weights
    layers: tuple[str, ...]
    mean: Rgb
    std: Rgb


def architecture_of(name: str) -> Architecture:
    """What the student of a teacher mirrors.

    Raises:
        ConfigurationError: it cannot teach (says which can).
    """
    if name not in TEACHERS:
        raise ConfigurationError(
            f"the backbone is {name!r}, and reverse distillation needs one whose layers its "
            f"student can mirror: {', '.join(TEACHERS)}"
        )
    return TEACHERS[name]


def load_teacher(name: str, weights: str | None) -> Teacher:
    """Make a teacher and fill it.

    Args:
        name: one of :data:`TEACHERS`.
        weights: as for :func:`patchline.export.weights.load_weights`.

    Raises:
        ConfigurationError: another backbone.
        WeightsError: the weights cannot be loaded or do not fit.
    """
    architecture_of(name)
    network: Any = timm.create_model(
        name, pretrained=False, features_only=True, out_indices=OUT_INDICES
    )
    loaded = load_weights(network, name, weights)
    network.requires_grad_(False).eval()
    config: Any = timm.get_pretrained_cfg(name)
    return Teacher(
        network=network,
        weights=loaded,
        layers=tuple(network.feature_info.module_name()),
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def block_width(name: str, asked: int | None) -> int:
    """The ``width_per_group`` of a student: as asked, or its teacher's.

    Raises:
        ConfigurationError: the teacher's blocks cannot have it.
    """
    architecture = architecture_of(name)
    if asked is None:
        return architecture.width_per_group
    if asked < 1:
        raise ConfigurationError(f"width_per_group is {asked}, expected at least 1")
    if not architecture.block.has_width and asked != architecture.width_per_group:
        raise ConfigurationError(
            f"width_per_group is {asked}, and the blocks of {name} have no width of their own: "
            f"leave it out, or give {architecture.width_per_group}"
        )
    return asked


def check_sides(size: ModelSize) -> None:
    """Refuse frames whose grids the student could not meet.

    Raises:
        ConfigurationError: a side is no multiple of 32 (says which are near).
    """
    if size.height % SIDE_DIVISOR or size.width % SIDE_DIVISOR:
        near = "x".join(str(_nearest_multiple(side)) for side in (size.height, size.width))
        raise ConfigurationError(
            f"the image size is {size.height}x{size.width}, and reverse distillation needs sides "
            f"that are multiples of {SIDE_DIVISOR}, such as --image-size {near}"
        )


def _nearest_multiple(side: int) -> int:
    return max(1, round(side / SIDE_DIVISOR)) * SIDE_DIVISOR
