"""Frames -> patch embeddings: normalisation, timm features, local averaging (DESIGN section 3).

Patch embeddings follow PatchCore (Roth et al., CVPR 2022, section 3.1): two middle layers, each
averaged over 3x3 neighbourhoods, joined on the finer grid.
"""

from __future__ import annotations

import difflib
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchline.export.weights import Weights, load_weights
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError

EMBEDDING_DIMENSION = 1024
"""Wider backbones are pooled to this width; narrower ones keep their own."""

SMALLEST_SIDE_PX = 32
Rgb = tuple[float, float, float]
_REDUCTIONS = [8, 16]


class PatchEmbedder(nn.Module):
    """uint8 frames ``[B, H, W, 3]`` BGR -> float32 patch embeddings ``[B, h, w, D]``.

    Args:
        name: a timm backbone with features at 1/8 and 1/16 of the frame.
        size: height and width of the frames in pixels.
        weights: as for :func:`patchline.export.weights.load_weights`.
        neighborhood: side of the square that features are averaged over, odd; 1 for none. Every
            model that is exported has 3 (PatchCore, section 3.1).

    Raises:
        ConfigurationError: timm has no such backbone, or it does not give such features.
        WeightsError: the weights cannot be loaded or do not fit.
    """

    def __init__(
        self, name: str, size: ModelSize, weights: str | None = None, *, neighborhood: int = 3
    ) -> None:
        super().__init__()
        _check_size(size)
        self.name = name
        self.neighborhood = neighborhood
        self.size = size
        self.network, features = _create(name)
        self.weights: Weights = load_weights(self.network, name, weights)
        self.network.requires_grad_(False).eval()
        self.layers: tuple[str, ...] = tuple(features.module_name())
        self.mean, self.std = _statistics(name)
        # In the units of the frame (0 to 255), so that the graph needs no division by 255.
        scale = torch.tensor([1 / (255 * value) for value in self.std])
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)])
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))
        self.pool = _channel_pool(sum(features.channels()))
        self.grid, self.dimension = self._measure()

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames; see the class."""
        fine, coarse = self.network(self.normalize(frames))
        fine, coarse = self._average(fine), self._average(coarse)
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        joined: Tensor = self.pool(torch.cat([fine, coarse], dim=1))
        return joined.permute(0, 2, 3, 1)

    def normalize(self, frames: Tensor) -> Tensor:
        """uint8 ``[B, H, W, 3]`` BGR -> float32 ``[B, 3, H, W]`` RGB, as the backbone expects."""
        # The cast comes first: TensorRT refuses to transpose uint8 (DESIGN section 5).
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2).flip(1)
        return pixels * cast(Tensor, self.scale) + cast(Tensor, self.shift)

    def _average(self, features: Tensor) -> Tensor:
        side = self.neighborhood
        return F.avg_pool2d(features, kernel_size=side, stride=1, padding=side // 2)

    def _measure(self) -> tuple[tuple[int, int], int]:
        frames = torch.zeros(1, self.size.height, self.size.width, 3, dtype=torch.uint8)
        with torch.inference_mode():
            _, height, width, dimension = self(frames).shape
        return (height, width), dimension


def convolution_names(name: str) -> tuple[str, ...]:
    """The convolutions of a timm backbone by name, such as ``layer1.0.conv1``, in its order.

    Raises:
        ConfigurationError: as for :class:`PatchEmbedder`.
    """
    with torch.random.fork_rng(devices=[]):  # its weights are drawn, and thrown away
        network, _ = _create(name)
    return tuple(path for path, part in network.named_modules() if isinstance(part, nn.Conv2d))


class ChannelPool(nn.Module):
    """Adaptive average pooling over channels, ``[B, C, h, w]`` -> ``[B, out_channels, h, w]``.

    The same numbers as ``adaptive_avg_pool1d`` over the channel axis, as a sum of a few channel
    gathers: pooling whose windows differ does not export, and a matrix product costs far more.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        starts = [i * in_channels // out_channels for i in range(out_channels)]
        ends = [-(-(i + 1) * in_channels // out_channels) for i in range(out_channels)]
        self.width = max(end - start for start, end in zip(starts, ends, strict=True))
        for offset in range(self.width):
            index = [min(s + offset, e - 1) for s, e in zip(starts, ends, strict=True)]
            weight = [(s + offset < e) / (e - s) for s, e in zip(starts, ends, strict=True)]
            self.register_buffer(f"index_{offset}", torch.tensor(index))
            self.register_buffer(f"weight_{offset}", torch.tensor(weight).view(1, -1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``[B, C, h, w]`` over C."""
        terms = [
            features.index_select(1, self.get_buffer(f"index_{offset}"))
            * self.get_buffer(f"weight_{offset}")
            for offset in range(self.width)
        ]
        return torch.stack(terms).sum(0) if len(terms) > 2 else sum(terms[1:], terms[0])


def _channel_pool(channels: int) -> nn.Module:
    if channels <= EMBEDDING_DIMENSION:
        return nn.Identity()
    return ChannelPool(channels, EMBEDDING_DIMENSION)


def _create(name: str) -> tuple[nn.Module, Any]:
    """The network and timm's description of its features."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 5)
        hint = f" Close names: {', '.join(close)}" if close else ""
        raise ConfigurationError(f"timm has no backbone {name!r}.{hint}")
    try:
        network: Any = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=(2, 3)
        )
    except Exception as error:  # timm says by various exceptions that it cannot
        raise ConfigurationError(f"{name} gives no intermediate features: {error}") from error
    reductions = network.feature_info.reduction()
    if reductions != _REDUCTIONS:
        raise ConfigurationError(
            f"{name} has features at 1/{reductions[0]} and 1/{reductions[-1]} of the frame, and "
            "1/8 and 1/16 are needed: choose a convolutional backbone such as wide_resnet50_2, "
            "resnet18 or efficientnet_b0"
        )
    return network, network.feature_info


def _statistics(name: str) -> tuple[Rgb, Rgb]:
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ConfigurationError(f"timm knows no input normalisation for {name}")
    (r, g, b), (r_std, g_std, b_std) = config.mean, config.std
    return (r, g, b), (r_std, g_std, b_std)


def _check_size(size: ModelSize) -> None:
    if min(size.height, size.width) < SMALLEST_SIDE_PX:
        raise ConfigurationError(
            f"the image size is {size.height}x{size.width}, expected at least "
            f"{SMALLEST_SIDE_PX} pixels a side"
        )
