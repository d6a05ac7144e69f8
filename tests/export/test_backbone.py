"""Patch embeddings against a plain reference, and the backbones that are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchline.export.backbone import EMBEDDING_DIMENSION, ChannelPool, PatchEmbedder
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def size_of(height: int, width: int) -> ModelSize:
    return ModelSize(height=height, width=width)


def draw_frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def embedder() -> PatchEmbedder:
    return PatchEmbedder("resnet18", size_of(64, 64), "random")


def normalized(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """BGR bytes -> RGB, scaled to 0..1, less the mean, by the deviation: [B, 3, H, W]."""
    blue, green, red = (frames[..., channel].double() / 255 for channel in range(3))
    planes = [(plane - m) / s for plane, m, s in zip((red, green, blue), mean, std, strict=True)]
    return torch.stack(planes, dim=1)


def embedded(network: torch.nn.Module, planes: Tensor) -> Tensor:
    """DESIGN section 3, step by step, in the precision of ``planes``."""
    fine, coarse = network(planes)
    averaged = [F.avg_pool2d(layer, 3, stride=1, padding=1) for layer in (fine, coarse)]
    upsampled = F.interpolate(
        averaged[1], size=averaged[0].shape[-2:], mode="bilinear", align_corners=False
    )
    joined = torch.cat([averaged[0], upsampled], dim=1).permute(0, 2, 3, 1)
    if joined.shape[-1] <= EMBEDDING_DIMENSION:
        return joined
    return F.adaptive_avg_pool1d(joined.flatten(0, 2)[:, None], EMBEDDING_DIMENSION).view(
        *joined.shape[:3], EMBEDDING_DIMENSION
    )


def reference(name: str, embedder: PatchEmbedder, frames: Tensor) -> Tensor:
    """The same weights in a network of timm's own, in float64."""
    network = timm.create_model(name, pretrained=False, features_only=True, out_indices=(2, 3))
    network.load_state_dict(embedder.network.state_dict())
    config = timm.get_pretrained_cfg(name)
    planes = normalized(frames, config.mean, config.std)
    with torch.inference_mode():
        return embedded(network.double().eval(), planes)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (72, 100), (33, 47)])
def test_the_embeddings_are_the_designs(height: int, width: int) -> None:
    embedder = PatchEmbedder("resnet18", size_of(height, width), "random")
    frames = draw_frames(2, height, width)
    with torch.inference_mode():
        found = embedder(frames)
    expected = reference("resnet18", embedder, frames)
    assert embedder.grid == (-(-height // 8), -(-width // 8))
    assert embedder.dimension == 128 + 256
    assert found.shape == (2, *embedder.grid, 384)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "resnet50"])
def test_other_backbones_too(name: str) -> None:
    """One normalised otherwise than ImageNet, and one wider than 1,024 channels."""
    embedder = PatchEmbedder(name, size_of(64, 48), "random")
    frames = draw_frames(2, 64, 48, seed=1)
    with torch.inference_mode():
        found = embedder(frames)
    expected = reference(name, embedder, frames)
    assert found.shape == expected.shape == (2, 8, 6, embedder.dimension)
    assert embedder.dimension == {"test_resnet": 240, "resnet50": 1024}[name]
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


def test_normalisation_is_by_the_backbones_own_figures() -> None:
    assert timm.get_pretrained_cfg("test_resnet").mean != IMAGENET[0]
    embedder = PatchEmbedder("test_resnet", size_of(32, 32), "random")
    assert (embedder.mean, embedder.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_normalisation_takes_bgr_bytes(embedder: PatchEmbedder) -> None:
    assert (embedder.mean, embedder.std) == IMAGENET
    frames = draw_frames(2, 64, 64, seed=2)
    found = embedder.normalize(frames)
    torch.testing.assert_close(found, normalized(frames, *IMAGENET).float(), rtol=1e-5, atol=1e-5)
    # A blue frame is blue: its last plane is the brightest.
    blue = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    blue[..., 0] = 255
    planes = embedder.normalize(blue)[0].mean((1, 2))
    assert planes.argmax() == 2
    assert float(planes[2]) == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)
    assert float(planes[0]) == pytest.approx(-0.485 / 0.229, rel=1e-5)


def test_a_frame_embeds_the_same_alone_and_in_any_batch(embedder: PatchEmbedder) -> None:
    frames = draw_frames(5, 64, 64, seed=3)
    frames[2] = 255
    with torch.inference_mode():
        together = embedder(frames)
        for at in range(5):
            alone = embedder(frames[at : at + 1])[0]
            torch.testing.assert_close(alone, together[at], rtol=1e-4, atol=1e-5)


def test_random_weights_are_the_same_every_time(embedder: PatchEmbedder) -> None:
    torch.manual_seed(99)
    again = PatchEmbedder("resnet18", size_of(64, 64), "random")
    assert again.weights == embedder.weights
    frames = draw_frames(1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(frames), embedder(frames))


def test_nothing_is_trained(embedder: PatchEmbedder) -> None:
    assert not any(parameter.requires_grad for parameter in embedder.parameters())
    assert not any(module.training for module in embedder.network.modules())
    state = {key: value.clone() for key, value in embedder.network.state_dict().items()}
    embedder(draw_frames(2, 64, 64))
    for key, value in embedder.network.state_dict().items():
        assert torch.equal(value, state[key]), key


PAIRS = [(1536, 1024), (2048, 1024), (1025, 1024), (3072, 1024), (640, 512), (640, 1), (7, 7)]


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
def test_channels_are_pooled_as_torch_pools(wide: int, narrow: int) -> None:
    assert_pools_as_torch(wide, narrow)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_channels_are_pooled_as_torch_pools_for_any_pair(one: int, other: int) -> None:
    assert_pools_as_torch(max(one, other), min(one, other))


def assert_pools_as_torch(wide: int, narrow: int) -> None:
    features = torch.randn(2, wide, 2, 3, generator=torch.Generator().manual_seed(wide))
    found = ChannelPool(wide, narrow)(features)
    rows = features.permute(0, 2, 3, 1).reshape(12, 1, wide)
    expected = F.adaptive_avg_pool1d(rows, narrow).view(2, 2, 3, narrow).permute(0, 3, 1, 2)
    assert found.shape == (2, narrow, 2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "close"),
    [("resnet81", "resnet18"), ("wide_resnet50", "wide_resnet50_2"), ("resnet_18", "resnet18")],
)
def test_an_unknown_backbone_is_refused_with_close_names(name: str, close: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"no backbone '{name}'.*\b{close}\b"):
        PatchEmbedder(name, size_of(64, 64), "random")


@pytest.mark.parametrize("name", ["", "no such thing at all", "resnet18.no_such_weights"])
def test_any_other_name_is_refused_too(name: str) -> None:
    with pytest.raises(ConfigurationError):
        PatchEmbedder(name, size_of(64, 64), "random")


@pytest.mark.parametrize(
    ("name", "scales"),
    [("test_vit", "1/16 and 1/16"), ("test_convnext", "1/16 and 1/32")],
)
def test_a_backbone_without_the_two_scales_is_refused(name: str, scales: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} has features at {scales}.*1/8 and 1/16"):
        PatchEmbedder(name, size_of(64, 64), "random")


def test_a_backbone_that_gives_no_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("features_only is not there yet")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ConfigurationError, match=re.escape("resnet18 gives no intermediate")):
        PatchEmbedder("resnet18", size_of(64, 64), "random")


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 31), (1, 1)])
def test_frames_too_small_are_refused(height: int, width: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{height}x{width}, expected at least 32"):
        PatchEmbedder("resnet18", size_of(height, width), "random")


def test_the_smallest_frames_are_taken() -> None:
    embedder = PatchEmbedder("resnet18", size_of(32, 32), "random")
    assert embedder.grid == (4, 4)
