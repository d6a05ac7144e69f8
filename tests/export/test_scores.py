"""The four scores against plain numpy in float64, and what every score must keep to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import DUPLICATE_SHARE, AnomalyHead, Detector
from patchline.export.neighbors import NearestNeighbors
from patchline.export.scores import DEFAULT_SCORE, SCORES, Patches, create_score
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import ConfigurationError

Values = npt.NDArray[np.float64]

GRID = (6, 8)
SIZE = ModelSize(height=48, width=64)
STATISTICS = DistanceStatistics(mean=5.0, std=0.6)
DIMENSION = 24


def normal(count: int, seed: int) -> Values:
    return np.random.default_rng(seed).normal(size=(count, DIMENSION))


def frames_of(count: int, seed: int) -> Tensor:
    """Embeddings float64 [B, h, w, D]."""
    return torch.from_numpy(normal(count * GRID[0] * GRID[1], seed)).view(count, *GRID, DIMENSION)


def make_head(
    bank: Values, score: str, k: int = 9, dtype: torch.dtype = torch.float64
) -> AnomalyHead:
    head = AnomalyHead(
        torch.from_numpy(bank).to(dtype), STATISTICS, GRID, SIZE, score=score, neighbors=k
    )
    return head.to(dtype)


@dataclass
class Reference:
    """Per patch: what DESIGN section 3 defines, by loops over float64."""

    nearest: npt.NDArray[np.int64]
    distances: Values
    jacobian: Values
    sigma: Values


def reference(bank: Values, rows: Values, k: int) -> Reference:
    k = min(k, len(bank))
    distances = np.sqrt(np.square(rows[:, None] - bank[None]).sum(2))
    nearest = distances.argsort(1, kind="stable")[:, :k]
    near = np.take_along_axis(distances, nearest, 1)
    jacobian = np.zeros_like(rows)
    for patch, row in enumerate(rows):
        for at, distance in zip(nearest[patch], near[patch], strict=True):
            if distance > 0:
                jacobian[patch] += (row - bank[at]) / distance / k
    size = np.abs(jacobian)
    spread = size.std(1, keepdims=True)
    channels = (size - size.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    gate = (near.mean(1, keepdims=True) - STATISTICS.mean) / STATISTICS.std
    sigma = 0.01 + 0.49 / (1 + np.exp(-(channels + gate)))
    return Reference(nearest, near, jacobian, sigma)


def patch_scores(name: str, found: Reference) -> Values:
    d_1, mean = found.distances[:, 0], found.distances.mean(1)
    by_name: dict[str, Callable[[], Values]] = {
        "distance": lambda: d_1,
        "patchcore": lambda: d_1,
        "weighted-sum": lambda: (
            0.4 * np.abs(found.jacobian).mean(1) + 0.4 * mean + 0.2 * found.sigma.mean(1)
        ),
        "noise-response": lambda: d_1 * np.sqrt(np.square(found.sigma * found.jacobian).sum(1)),
    }
    return by_name[name]()


def smoothed(scores: Values) -> Values:
    """Upsampled bilinearly and blurred, by torch and scipy."""
    grid = torch.from_numpy(scores.reshape(1, 1, *GRID))
    fine = torch.nn.functional.interpolate(grid, (SIZE.height, SIZE.width), mode="bilinear")
    sigmas = (SIZE.height / 64, SIZE.width / 64)
    result: Values = gaussian_filter(fine[0, 0].numpy(), sigmas, mode="mirror", truncate=4)
    return result


def reweighted(bank: Values, rows: Values, found: Reference) -> float:
    """The PatchCore paper's equations 6 and 7, as printed, with b = 9."""
    worst = int(found.distances[:, 0].argmax())
    test, nearest = rows[worst], bank[found.nearest[worst, 0]]
    around = np.sqrt(np.square(bank - nearest).sum(1)).argsort(kind="stable")[:9]
    weights = [np.exp(np.linalg.norm(test - bank[at])) for at in around]
    s_star = float(np.linalg.norm(test - nearest))
    return float((1 - np.exp(s_star) / np.sum(weights)) * s_star)


def image_score(name: str, bank: Values, rows: Values, found: Reference) -> float:
    scores = patch_scores(name, found)
    if name == "patchcore":
        return reweighted(bank, rows, found)
    if name == "weighted-sum":
        return float(scores.max())
    return float(smoothed(scores).max())


def test_the_registry() -> None:
    assert list(SCORES) == ["distance", "patchcore", "weighted-sum", "noise-response"]
    assert DEFAULT_SCORE == "noise-response"
    search = NearestNeighbors(torch.rand(12, 3), 2)
    for name, kind in SCORES.items():
        assert type(create_score(name, search)) is kind


@pytest.mark.parametrize("name", ["", "Distance", "mahalanobis"])
def test_an_unknown_score_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}'.*distance, patchcore, weighted-sum, n"):
        create_score(name, NearestNeighbors(torch.rand(12, 3), 2))


@pytest.mark.parametrize("k", [1, 4, 9])
@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_its_formula(name: str, k: int) -> None:
    bank, frames = normal(200, 0), frames_of(3, 1)
    head = make_head(bank, name, k)
    rows = frames.flatten(0, 2)
    patches = head.patches(rows, head.search(rows))
    expected = patch_scores(name, reference(bank, rows.numpy(), k))
    found = head.score.patch_scores(patches).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rows_in_bank", [1, 5, 9, 200])
@pytest.mark.parametrize("name", SCORES)
def test_every_output_is_its_formula(name: str, rows_in_bank: int) -> None:
    """Also where the bank has fewer rows than k = 9 and b = 9."""
    bank, frames = normal(rows_in_bank, 2), frames_of(2, 3)
    scores, maps, influences = make_head(bank, name)(frames)
    assert scores.shape == (2,)
    assert maps.shape == influences.shape == (2, SIZE.height, SIZE.width)
    for at in range(2):
        rows = frames[at].flatten(0, 1).numpy()
        found = reference(bank, rows, 9)
        expected = image_score(name, bank, rows, found)
        assert float(scores[at]) == pytest.approx(expected, rel=1e-5, abs=1e-9)
        expected_map = smoothed(patch_scores(name, found))
        np.testing.assert_allclose(maps[at].numpy(), expected_map, rtol=1e-5)
        lengths = torch.from_numpy(np.linalg.norm(found.jacobian, axis=1).reshape(1, 1, *GRID))
        upsampled = torch.nn.functional.interpolate(
            lengths, (SIZE.height, SIZE.width), mode="bilinear"
        )
        np.testing.assert_allclose(influences[at].numpy(), upsampled[0, 0].numpy(), rtol=1e-5)


def test_reweighting_lowers_the_score_where_the_bank_is_sparse() -> None:
    bank = normal(300, 4)
    frames = frames_of(1, 5)
    plain = float(make_head(bank, "patchcore").score.patch_scores(patches_of(bank, frames)).max())
    weighted = float(make_head(bank, "patchcore")(frames)[0])
    assert 0 < weighted < plain


def patches_of(bank: Values, frames: Tensor) -> Patches:
    head = make_head(bank, "distance")
    rows = frames.flatten(0, 2)
    return head.patches(rows, head.search(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_large_distances_do_not_overflow(name: str, dtype: torch.dtype) -> None:
    """exp(d) is infinite in float32 from d = 89 on, and in float64 from 710 on."""
    bank = normal(50, 6)
    frames = frames_of(2, 7)
    frames[0, 2, 3] += 5000
    outputs = make_head(bank, name, dtype=dtype)(frames.to(dtype))
    for output in outputs:
        assert output.isfinite().all()
    assert float(outputs[0][0]) > 10 * float(outputs[0][1])


def test_reweighting_at_large_distances_is_the_paper_with_a_common_factor_taken_out() -> None:
    bank, frames = normal(50, 6), frames_of(1, 7)
    frames[0, 2, 3] += 400
    rows = frames.flatten(0, 2).numpy()
    found = reference(bank, rows, 9)
    worst = int(found.distances[:, 0].argmax())
    nearest = found.nearest[worst, 0]
    around = np.linalg.norm(bank - bank[nearest], axis=1).argsort()[:9]
    apart = np.linalg.norm(rows[worst] - bank[around], axis=1)
    d_1 = found.distances[worst, 0]
    expected = (1 - 1 / np.exp(apart - d_1).sum()) * d_1
    assert d_1 > 710
    assert float(make_head(bank, "patchcore")(frames)[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCORES)
def test_a_frame_scores_the_same_alone_and_in_any_batch(name: str, dtype: torch.dtype) -> None:
    head, frames = make_head(normal(150, 8), name, dtype=dtype), frames_of(6, 9).to(dtype)
    frames[4] *= 30  # an anomalous mate
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    together = head(frames)
    for at in range(6):
        for whole, alone in zip(together, head(frames[at : at + 1]), strict=True):
            torch.testing.assert_close(alone[0], whole[at], **tolerance)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    for whole, permuted in zip(together, head(frames[order]), strict=True):
        torch.testing.assert_close(permuted, whole[order], **tolerance)
    for whole, repeated in zip(together, head(frames[[4, 4]]), strict=True):
        torch.testing.assert_close(repeated[0], repeated[1])
        torch.testing.assert_close(repeated[0], whole[4], **tolerance)


@pytest.mark.parametrize("name", SCORES)
def test_a_detector_scores_a_frame_the_same_alone_and_in_any_batch(name: str) -> None:
    size = ModelSize(height=64, width=64)
    embedder = PatchEmbedder("resnet18", size, "random")
    generator = torch.Generator().manual_seed(10)
    good = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        bank = embedder(good).flatten(0, 2)[::3]
    statistics = DistanceStatistics(mean=0.3, std=0.1)
    head = AnomalyHead(bank, statistics, embedder.grid, size, score=name, neighbors=9)
    detector = Detector(embedder, head)
    frames = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8, generator=generator)
    frames[3] = 255
    together = detector.predict(frames)
    assert [tuple(output.shape) for output in together] == [(5,), (5, 64, 64), (5, 64, 64)]
    order = [3, 1, 4, 0, 2]
    permuted = detector.predict(frames[order])
    for at in range(5):
        alone = detector.predict(frames[at : at + 1])
        for whole, one, moved in zip(together, alone, permuted, strict=True):
            torch.testing.assert_close(one[0], whole[at], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(moved[order.index(at)], whole[at], rtol=1e-4, atol=1e-5)
    scores = together[0]
    assert scores.unique().numel() == 5  # so that mixing frames up would show


@pytest.mark.parametrize("name", SCORES)
def test_a_patch_scores_more_the_farther_away_it_moves(name: str) -> None:
    bank = normal(60, 11)
    head = make_head(bank, name)
    away = torch.from_numpy(normal(1, 12))[0]
    away /= away.norm()
    steps = torch.linspace(0, 300, 60, dtype=torch.float64)
    frames = torch.from_numpy(bank[:1]).expand(60, *GRID, -1).clone()
    frames[:, 3, 4] += (30 + steps).unsqueeze(1) * away
    scores, maps, _ = head(frames)
    assert (scores.diff() > 0).all()
    assert (maps[:, 28, 36].diff() > 0).all()


def test_neighbours_within_rounding_of_the_patch_count_as_copies() -> None:
    """Two runtimes' float32 backbones differ: the direction to a near copy is noise."""
    bank = normal(40, 13)
    limit = DUPLICATE_SHARE * np.linalg.norm(bank, axis=1).mean()
    head = make_head(bank, "noise-response", k=1)
    assert head.duplicate_distance == pytest.approx(limit, rel=1e-6)
    direction = np.ones(DIMENSION) / np.sqrt(DIMENSION)
    for share, expected in ((0.0, 0.0), (0.9, 0.0), (1.1, 1.0)):
        rows = torch.from_numpy(bank[7:8] + share * limit * direction)
        influence = head.influence(rows, head.search(rows))
        assert float(influence.norm) == pytest.approx(expected, abs=1e-6)
        assert float(influence.distances) == pytest.approx(share * limit, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_frames_of_the_banks_own_rows_score_next_to_nothing(name: str) -> None:
    bank = normal(GRID[0] * GRID[1], 14)
    head = make_head(bank, name, k=1)
    scores, maps, influences = head(torch.from_numpy(bank).view(1, *GRID, -1))
    # weighted-sum keeps its floor: 0.2 mean sigma.
    floor = 0.2 * 0.5 if name == "weighted-sum" else 0.0
    assert 0 <= float(scores) <= floor + 1e-9
    assert float(maps.max()) <= floor + 1e-9
    assert not influences.any()


def test_judging_known_neighbours_is_judging() -> None:
    head, frames = make_head(normal(80, 15), "noise-response"), frames_of(2, 16)
    indices = head.search(frames.flatten(0, 2))
    for one, other in zip(head(frames), head.judge(frames, indices), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SCORES)
def test_the_bank_is_held_once(name: str) -> None:
    head = make_head(normal(64, 17), name)
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in head.state_dict().values()}
    assert sorted(tensors.values())[-1] == 64 * DIMENSION
    assert sum(count for count in tensors.values() if count >= 64 * DIMENSION) == 64 * DIMENSION
