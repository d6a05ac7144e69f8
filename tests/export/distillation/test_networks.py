"""Teacher, bottleneck and student: shapes, what is trained, what is refused."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

from patchline.export.backbone import PatchEmbedder
from patchline.export.distillation.loss import cosine_loss
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.residual import BasicBlock, Block, BottleneckBlock
from patchline.runtime.errors import ConfigurationError, WeightsError

from .frames_of import draw_frames, size_of, tiny_model

TEACHERS = {"resnet18": 1, "resnet50": 4, "wide_resnet50_2": 4}


@pytest.mark.parametrize(("name", "expansion"), TEACHERS.items())
def test_the_student_has_the_teachers_shapes(name: str, expansion: int) -> None:
    model = ReverseDistillation(name, size_of(64, 64), "random").eval()
    frames = draw_frames(1, 64, 64)
    with torch.inference_mode():
        features = model.teacher_features(frames)
        embedding = model.bottleneck(features)
        rebuilt = model.reconstruct(features)
    shapes = [
        (1, base * expansion, 64 // by, 64 // by) for base, by in ((64, 4), (128, 8), (256, 16))
    ]
    assert [tuple(layer.shape) for layer in features] == shapes
    assert [tuple(layer.shape) for layer in rebuilt] == shapes
    assert embedding.shape == (1, 512 * expansion, 2, 2)
    assert model.grids == ((16, 16), (8, 8), (4, 4))
    assert model.layers == ("layer1", "layer2", "layer3")
    assert model.width_per_group == (128 if name.startswith("wide") else 64)


@pytest.mark.parametrize(("name", "width"), [("resnet50", 64), ("wide_resnet50_2", 128)])
def test_a_block_is_as_wide_as_its_teachers(name: str, width: int) -> None:
    """Less the direction of the last stage, its convolutions have the shapes of timm's layer 4."""
    with torch.device("meta"):
        teacher = timm.create_model(name, pretrained=False)
        own = nn.Sequential(
            BottleneckBlock(1024, 512, "half", width), BottleneckBlock(2048, 512, "same", width)
        )
    assert convolutions(own) == convolutions(teacher.layer4[:2])


def test_a_basic_block_has_its_teachers_shapes() -> None:
    with torch.device("meta"):
        teacher = timm.create_model("resnet18", pretrained=False)
        own = nn.Sequential(BasicBlock(256, 512, "half", 64), BasicBlock(512, 512, "same", 64))
    assert convolutions(own) == convolutions(teacher.layer4)


def convolutions(network: nn.Module) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return sorted(
        (tuple(part.weight.shape), tuple(part.stride))
        for part in network.modules()
        if isinstance(part, nn.Conv2d)
    )


@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
def test_a_block_doubles_its_grid_by_transposed_convolutions(kind: type[Block]) -> None:
    block = kind(64, 16, "double", 64)
    doubling = [part for part in block.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert [(part.kernel_size, part.stride) for part in doubling] == [((2, 2), (2, 2))] * 2
    assert block(torch.randn(2, 64, 3, 5)).shape == (2, 16 * kind.expansion, 6, 10)


def test_a_block_of_one_shape_adds_its_input() -> None:
    block = BottleneckBlock(64, 16, "same", 64).eval()
    assert isinstance(block.shortcut, nn.Identity)
    features = torch.randn(1, 64, 4, 4)
    with torch.no_grad():
        residual = block.residual(features)
        torch.testing.assert_close(block(features), (residual + features).clamp_min(0))


def test_the_teacher_stays_as_it_is() -> None:
    model = tiny_model().train()
    assert model.student.training and model.bottleneck.training
    assert not any(part.training for part in model.teacher.modules())
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    clean, rebuilt = model(draw_frames(3, 32, 32))
    assert not any(layer.requires_grad for layer in clean)
    cosine_loss(clean, rebuilt)[0].backward()
    torch.optim.SGD((p for p in model.parameters() if p.grad is not None), lr=1.0).step()
    for name, tensor in model.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_gradients_reach_bottleneck_and_student_and_nothing_else() -> None:
    model = tiny_model().train()
    clean, rebuilt = model(draw_frames(3, 32, 32))
    cosine_loss(clean, rebuilt)[0].backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    left = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert learned == {"bottleneck", "student"}
    assert left == {"teacher"}


def test_the_teacher_is_the_backbone_of_the_other_methods() -> None:
    """The same digest, normalisation and features: one weights file serves both."""
    embedder = PatchEmbedder("resnet18", size_of(64, 96), "random")
    model = ReverseDistillation("resnet18", size_of(64, 96), "random")
    frames = draw_frames(2, 64, 96)
    assert model.weights == embedder.weights
    assert (model.mean, model.std) == (embedder.mean, embedder.std)
    assert torch.equal(model.normalize(frames), embedder.normalize(frames))
    with torch.inference_mode():
        middle, coarse = embedder.network(embedder.normalize(frames))
        assert torch.equal(model.teacher_features(frames)[1], middle)
        assert torch.equal(model.teacher_features(frames)[2], coarse)


def test_fresh_weights_follow_their_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = tiny_model(seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = tiny_model(seed=3).state_dict(), tiny_model(seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], other[name])}
    assert changed == {"bottleneck", "student"}


def test_a_frame_is_rebuilt_the_same_alone_and_in_a_batch() -> None:
    model = ReverseDistillation("resnet18", size_of(32, 64), "random").eval()
    frames = draw_frames(3, 32, 64)
    with torch.inference_mode():
        together = model(frames)[1]
        for at in range(3):
            alone = model(frames[at : at + 1])[1]
            for layer, whole in zip(alone, together, strict=True):
                torch.testing.assert_close(layer[0], whole[at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet34", "efficientnet_b0", "resnet18.a1_in1k", ""])
def test_another_teacher_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}'.*resnet18, resnet50, wide_resnet50_2"):
        ReverseDistillation(name, size_of(64, 64), "random")


@pytest.mark.parametrize(
    ("height", "width", "near"), [(100, 64, "96x64"), (64, 47, "64x32"), (9, 240, "32x256")]
)
def test_sides_that_are_no_multiples_are_refused(height: int, width: int, near: str) -> None:
    expected = rf"{height}x{width}.*multiples of 32, such as --image-size {near}$"
    with pytest.raises(ConfigurationError, match=expected):
        ReverseDistillation("resnet18", size_of(height, width), "random")


def test_a_width_that_the_blocks_cannot_have_is_refused() -> None:
    assert tiny_model(width_per_group=64).width_per_group == 64
    with pytest.raises(ConfigurationError, match="128, and the blocks of resnet18 have no width"):
        tiny_model(width_per_group=128)
    with pytest.raises(ConfigurationError, match="is 0, expected at least 1"):
        ReverseDistillation("resnet50", size_of(32, 32), "random", width_per_group=0)


def test_another_width_of_a_bottleneck_is_taken() -> None:
    block = BottleneckBlock(64, 64, "same", 96)
    shapes = [p.weight.shape[:2] for p in block.residual.modules() if isinstance(p, nn.Conv2d)]
    assert [tuple(shape) for shape in shapes] == [(96, 64), (96, 96), (256, 96)]


def test_weights_that_do_not_exist_are_an_error() -> None:
    with pytest.raises(WeightsError, match=re.escape("no/such.pth does not exist")):
        ReverseDistillation("resnet18", size_of(32, 32), "no/such.pth")
