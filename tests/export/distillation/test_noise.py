"""The noise and its banks beside plain loops in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from patchline.calibration.folds import assign_folds
from patchline.export.distillation import noise, noise_banks
from patchline.export.distillation.bottleneck import Features
from patchline.export.distillation.frames import TrainingFrames
from patchline.export.distillation.noise import AdaptiveFeatureNoise, ScaleBank
from patchline.export.distillation.noise_banks import fit_banks
from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import ConfigurationError, DataError
from patchline.runtime.progress import SilentSteps

from ..drawn import write_good
from .frames_of import size_of, tiny_model

Rows = npt.NDArray[np.float64]

CHANNELS = (8, 12, 16)
ROWS = (40, 33, 7)  # more than a group of 32, and fewer than nine neighbours


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_features(batch: int = 2) -> Features:
    fine, middle, coarse = (
        draw((batch, channels, side, side + 1), seed)
        for seed, (channels, side) in enumerate(zip(CHANNELS, (4, 3, 2), strict=True))
    )
    return fine, middle, coarse


BANKS = tuple(
    ScaleBank(
        memory_bank=draw((rows, channels), 10 + at),
        deviation=draw((channels,), 20 + at).abs(),
        statistics=DistanceStatistics(mean=3.0 + at, std=0.4),
    )
    for at, (rows, channels) in enumerate(zip(ROWS, CHANNELS, strict=True))
)


@pytest.fixture
def adaptive() -> AdaptiveFeatureNoise:
    return AdaptiveFeatureNoise(BANKS, smallest=0.01, largest=0.3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sigma_of_patch(patch: Rows, bank: ScaleBank) -> Rows:
    """DESIGN section 3 for one patch, in the features' own units."""
    rows = bank.memory_bank.double().numpy()
    distances = np.sqrt(((patch - rows) ** 2).sum(1))
    nearest = np.argsort(distances)[:9]
    jacobian = np.mean([(patch - rows[j]) / distances[j] for j in nearest], axis=0)
    influence = np.abs(jacobian)
    level = (influence - influence.mean()) / influence.std()
    level = level + (distances[nearest].mean() - bank.statistics.mean) / bank.statistics.std
    return (0.01 + 0.29 / (1 + np.exp(-level))) * bank.deviation.double().numpy()


@pytest.mark.parametrize("block_values", [1, 100, 1 << 25])
def test_sigma_is_the_designs(
    adaptive: AdaptiveFeatureNoise, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "_BLOCK_VALUES", block_values)
    features = draw_features()
    for layer, found, bank in zip(features, adaptive.sigma(features), BANKS, strict=True):
        assert found.shape == layer.shape
        expected = np.empty(layer.shape)
        for image, row, column in np.ndindex(layer.shape[0], *layer.shape[2:]):
            patch = layer[image, :, row, column].double().numpy()
            expected[image, :, row, column] = sigma_of_patch(patch, bank)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_noise_has_that_deviation_and_no_mean(adaptive: AdaptiveFeatureNoise) -> None:
    features = draw_features(batch=1)
    sigma = adaptive.sigma(features)
    draws, seeded = 4000, generator()
    for at in range(3):
        only = [layer.expand(draws, -1, -1, -1) for layer in features]
        scale = noise._normal(only[at], seeded) * sigma[at]
        torch.testing.assert_close(scale.std(0), sigma[at][0], rtol=0.08, atol=0)
    noisy = adaptive.disturb(features, 0.5, generator(7))
    expected = [
        layer + 0.5 * level * torch.randn(layer.shape, generator=seeded)
        for seeded in [generator(7)]
        for layer, level in zip(features, sigma, strict=True)
    ]
    for found, layer in zip(noisy, expected, strict=True):
        torch.testing.assert_close(found, layer)


def test_strength_is_a_factor_of_the_noise(adaptive: AdaptiveFeatureNoise) -> None:
    features = draw_features()
    whole = adaptive.disturb(features, 1.0, generator(3))
    quarter = adaptive.disturb(features, 0.25, generator(3))
    for layer, one, other in zip(features, whole, quarter, strict=True):
        assert not torch.equal(layer, one)
        torch.testing.assert_close(other - layer, 0.25 * (one - layer), rtol=1e-3, atol=1e-6)


def test_no_strength_leaves_the_features_as_they_are(adaptive: AdaptiveFeatureNoise) -> None:
    features = draw_features()
    found = adaptive.disturb(features, 0.0, generator())
    assert all(a is b for a, b in zip(found, features, strict=True))


def test_the_noise_follows_its_generator_alone(adaptive: AdaptiveFeatureNoise) -> None:
    features = draw_features()
    before = [layer.clone() for layer in features]
    torch.manual_seed(1)
    first = adaptive.disturb(features, 1.0, generator(5))
    torch.manual_seed(2)
    again, other = (adaptive.disturb(features, 1.0, generator(seed)) for seed in (5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=True))


def test_a_picture_is_disturbed_as_much_whatever_its_batch(adaptive: AdaptiveFeatureNoise) -> None:
    features = draw_features(batch=3)
    together = adaptive.sigma(features)
    fine, middle, coarse = (layer[1:2] for layer in features)
    for alone, whole in zip(adaptive.sigma((fine, middle, coarse)), together, strict=True):
        torch.testing.assert_close(alone[0], whole[1])


def test_a_patch_of_the_bank_gets_finite_noise(adaptive: AdaptiveFeatureNoise) -> None:
    fine, middle, coarse = (bank.memory_bank[3].view(1, -1, 1, 1) for bank in BANKS)
    assert all(bool(layer.isfinite().all()) for layer in adaptive.sigma((fine, middle, coarse)))


def test_a_dead_channel_stays_dead() -> None:
    deviation = BANKS[0].deviation.clone()
    deviation[2] = 0
    bank = ScaleBank(BANKS[0].memory_bank, deviation, BANKS[0].statistics)
    found = AdaptiveFeatureNoise((bank, *BANKS[1:]), smallest=0.01, largest=0.3).disturb(
        draw_features(), 1.0, generator()
    )
    assert torch.equal(found[0][:, 2], draw_features()[0][:, 2])


def test_half_precision_features_are_disturbed_in_float32(adaptive: AdaptiveFeatureNoise) -> None:
    fine, middle, coarse = (layer.half() for layer in draw_features())
    found = adaptive.disturb((fine, middle, coarse), 1.0, generator())
    assert {layer.dtype for layer in found} == {torch.float32}


def test_nothing_in_it_is_trained(adaptive: AdaptiveFeatureNoise) -> None:
    assert not list(adaptive.parameters())
    assert not adaptive.sigma(draw_features())[0].requires_grad


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(
    adaptive: AdaptiveFeatureNoise, strength: float
) -> None:
    with pytest.raises(ConfigurationError, match="strength is"):
        adaptive.disturb(draw_features(), strength, generator())


@pytest.mark.parametrize(("smallest", "largest"), [(0.3, 0.1), (-0.1, 0.2), (0.1, float("nan"))])
def test_a_range_that_is_none_is_refused(smallest: float, largest: float) -> None:
    with pytest.raises(ConfigurationError, match="noise ranges from"):
        AdaptiveFeatureNoise(BANKS, smallest=smallest, largest=largest)


@pytest.mark.parametrize(
    ("bank_rows", "channels", "patches"), [(900, 4, 2), (4, 100, 2), (4, 4, 50)]
)
def test_patches_come_in_blocks_that_fit(
    monkeypatch: pytest.MonkeyPatch, bank_rows: int, channels: int, patches: int
) -> None:
    """Of distances to a long bank, or of the neighbours of wide features."""
    monkeypatch.setattr(noise, "_BLOCK_VALUES", 1800)
    blocks = noise.in_blocks(torch.zeros(101, channels), bank_rows)
    assert {len(block) for block in blocks[:-1]} == {patches}
    assert sum(map(len, blocks)) == 101


PICTURES = 7


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> TrainingFrames:
    paths = write_good(tmp_path_factory.mktemp("good"), PICTURES, side_px=64)
    return TrainingFrames(paths, size_of(32, 32), 1 << 30, SilentSteps())


@pytest.fixture(scope="module")
def teacher() -> Callable[[Tensor], Features]:
    return tiny_model().teacher_features


def fitted(
    frames: TrainingFrames,
    teacher: Callable[[Tensor], Features],
    *,
    ratio: float = 0.1,
    batch_size: int = 3,
    budget_bytes: int = 1 << 30,
) -> tuple[ScaleBank, ...]:
    return fit_banks(
        frames,
        teacher,
        ratio=ratio,
        batch_size=batch_size,
        seed=3,
        budget_bytes=budget_bytes,
        steps=SilentSteps(),
    )


def test_banks_are_of_good_patches_and_statistics_of_unseen_ones(
    frames: TrainingFrames, teacher: Callable[[Tensor], Features]
) -> None:
    unseen = assign_folds(PICTURES, 3) == 0
    with torch.no_grad():
        layers = teacher(frames.read(range(PICTURES)))
    for bank, layer in zip(fitted(frames, teacher), layers, strict=True):
        rows = layer.permute(0, 2, 3, 1).flatten(1, 2).double().numpy()  # picture, patch, channel
        found = bank.memory_bank.double().numpy()
        assert len(found) == int(rows.shape[0] * rows.shape[1] * 0.1)
        seen, held_out = rows[~unseen].reshape(-1, rows.shape[2]), rows[unseen]
        gaps = np.abs(found[:, None] - seen[None]).max(2).min(1)
        assert gaps.max() < 1e-4  # each row is a patch of the others
        everything = rows.reshape(-1, rows.shape[2])
        np.testing.assert_allclose(bank.deviation.numpy(), everything.std(0), rtol=1e-4, atol=1e-5)
        k = min(9, len(found))
        means = [
            np.sort(np.sqrt(((patch - found) ** 2).sum(1)))[:k].mean()
            for patch in held_out.reshape(-1, rows.shape[2])
        ]
        assert bank.statistics.mean == pytest.approx(np.mean(means), rel=1e-4)
        assert bank.statistics.std == pytest.approx(np.std(means), rel=1e-3, abs=1e-5)


def test_banks_do_not_depend_on_the_batch(
    frames: TrainingFrames, teacher: Callable[[Tensor], Features]
) -> None:
    one, other = fitted(frames, teacher), fitted(frames, teacher, batch_size=7)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.deviation, b.deviation, rtol=1e-4, atol=1e-5)
        assert a.memory_bank.shape == b.memory_bank.shape


def test_a_small_budget_draws_from_every_picture(
    frames: TrainingFrames,
    teacher: Callable[[Tensor], Features],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []
    collect = noise_banks._collect

    def watched(*given: object) -> object:
        scales = collect(*given)  # type: ignore[arg-type]
        kept.extend(len(scale.rows) for scale in scales)
        return scales

    monkeypatch.setattr(noise_banks, "_collect", watched)
    # All 84 patches of a picture (64 + 16 + 4) take 68.5 kB; a quarter of them is asked for.
    whole = 7 * (64 * (128 * 4 + 16) + 16 * (256 * 4 + 16) + 4 * (384 * 4 + 16))
    banks = fitted(frames, teacher, ratio=1.0, budget_bytes=whole // 2)
    assert kept == [7 * 16, 7 * 4, 7 * 1]
    assert [len(bank.memory_bank) for bank in banks] == [5 * 16, 5 * 4, 5 * 1]
    again = fitted(frames, teacher, ratio=1.0, budget_bytes=whole // 2)
    assert all(torch.equal(a.memory_bank, b.memory_bank) for a, b in zip(banks, again, strict=True))


def test_one_picture_is_too_few(tmp_path: Path, teacher: Callable[[Tensor], Features]) -> None:
    alone = TrainingFrames(write_good(tmp_path, 1), size_of(32, 32), 1 << 30, SilentSteps())
    with pytest.raises(DataError, match="1 good picture is too few"):
        fitted(alone, teacher)


def test_features_that_are_not_finite_name_their_picture(frames: TrainingFrames) -> None:
    def broken(pixels: Tensor) -> Features:
        fine, middle, coarse = (torch.zeros(len(pixels), 4, side, side) for side in (4, 2, 1))
        middle[-1, 0, 0, 0] = torch.nan
        return fine, middle, coarse

    with pytest.raises(DataError, match=r"002\.png.*--weights"):
        fitted(frames, broken)
