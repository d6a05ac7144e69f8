"""The rounds pick what the textbook loop picks, in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from patchline.export import coreset, nearest_center
from patchline.export.coreset import coreset_size, greedy_coreset, random_projection
from patchline.runtime.errors import ConfigurationError

Rows = npt.NDArray[np.float64]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


def first_pick(candidates: npt.NDArray[np.int64], seed: int) -> int:
    generator = torch.Generator().manual_seed(seed)
    return int(candidates[int(torch.randint(len(candidates), (1,), generator=generator))])


def naive_coreset(
    rows: Rows, size: int, seed: int = 0, excluded: npt.NDArray[np.bool_] | None = None
) -> tuple[list[int], float]:
    """The textbook loop: every row is read for every pick. Picks in order, and the radius."""
    free = np.ones(len(rows), bool) if excluded is None else ~excluded
    everyone = free.copy()
    nearest = np.full(len(rows), np.inf)
    picks: list[int] = []
    for _ in range(size):
        if picks:
            at = int(np.where(free, nearest, -1.0).argmax())  # of equals, the first
        else:
            at = first_pick(np.flatnonzero(free), seed)
        picks.append(at)
        free[at] = False
        nearest = np.minimum(nearest, np.square(rows - rows[at]).sum(1))
    return picks, math.sqrt(nearest[everyone].max())


def assert_same_picks(
    rows: Rows, size: int, seed: int = 0, excluded: npt.NDArray[np.bool_] | None = None
) -> None:
    picks, radius = naive_coreset(rows, size, seed, excluded)
    mask = None if excluded is None else torch.from_numpy(excluded)
    found = greedy_coreset(torch.from_numpy(rows), size, seed=seed, excluded=mask)
    assert found.indices.dtype == torch.int64
    assert found.indices.tolist() == picks
    assert found.radius == pytest.approx(radius, rel=1e-9, abs=1e-12)


def normal(count: int, dimension: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, dimension))


def clustered(count: int, dimension: int, spread: float, offset: float = 0.0) -> Rows:
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(7, dimension)) + offset
    return centers[rng.integers(0, 7, count)] + spread * rng.normal(size=(count, dimension))


def duplicated(count: int, dimension: int) -> Rows:
    rng = np.random.default_rng(6)
    return rng.normal(size=(max(2, count // 6), dimension))[rng.integers(0, count // 6, count)]


def integer_grid(count: int, dimension: int) -> Rows:
    return np.random.default_rng(7).integers(0, 3, (count, dimension)).astype(np.float64)


MAKERS: dict[str, Callable[[int, int], Rows]] = {
    "random": normal,
    "uniform": lambda n, d: np.random.default_rng(4).random((n, d)),
    "clustered": lambda n, d: clustered(n, d, 1e-2),
    "tight clusters": lambda n, d: clustered(n, d, 1e-6),
    "tight clusters far from 0": lambda n, d: clustered(n, d, 1e-5, offset=1000.0),
    "duplicated": duplicated,
    "identical": lambda n, d: np.full((n, d), 0.1),
    "zero": lambda n, d: np.zeros((n, d)),
    "integer grid": integer_grid,
    "one outlier": lambda n, d: np.vstack([normal(n - 1, d) * 1e-3, np.full((1, d), 1e3)]),
}


@pytest.fixture(params=[16, 64, 2048])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Small blocks make many rounds of few rows."""
    monkeypatch.setattr(coreset, "_BLOCK_ROWS", request.param)
    return int(request.param)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dimension", [1, 3, 40])
def test_same_picks_in_the_same_order(kind: str, dimension: int, block_rows: int) -> None:
    rows = MAKERS[kind](400, dimension)
    assert_same_picks(rows, 120, seed=3)


@pytest.mark.parametrize("kind", MAKERS)
def test_same_picks_until_every_row_is_picked(kind: str, block_rows: int) -> None:
    rows = MAKERS[kind](150, 4)
    assert_same_picks(rows, 150, seed=1)


@pytest.mark.parametrize("kind", ["random", "tight clusters", "duplicated", "integer grid"])
def test_same_picks_beyond_the_real_block(kind: str) -> None:
    rows = MAKERS[kind](5000, 12)
    assert_same_picks(rows, 300, seed=2)


def test_rounds_really_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "_BLOCK_ROWS", 16)
    seen: list[int] = []
    greedy_coreset(torch.from_numpy(normal(400, 8)), 120, on_progress=seen.append)
    assert len(seen) > 5
    steps = np.diff([1, *seen])
    assert (steps >= 1).all() and steps.max() > 1


@pytest.mark.parametrize("kind", MAKERS)
def test_excluded_rows_are_neither_picked_nor_counted(kind: str, block_rows: int) -> None:
    rows = MAKERS[kind](300, 6)
    excluded = np.random.default_rng(8).random(300) < 0.4
    excluded[:20] = True
    candidates = int((~excluded).sum())
    assert_same_picks(rows, 50, seed=4, excluded=excluded)
    assert_same_picks(rows, candidates, seed=4, excluded=excluded)
    mask = torch.from_numpy(excluded)
    found = greedy_coreset(torch.from_numpy(rows), candidates, excluded=mask).indices
    assert sorted(found.tolist()) == np.flatnonzero(~excluded).tolist()
    with pytest.raises(ConfigurationError, match=f"{candidates + 1}.*1 to {candidates}"):
        greedy_coreset(torch.from_numpy(rows), candidates + 1, excluded=mask)


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_picked_beforehand_come_first_and_the_rest_follows(kind: str, block_rows: int) -> None:
    """A bank that is extended: the same picks as a greedy that has those centers already."""
    rows = MAKERS[kind](300, 6)
    excluded = np.zeros(300, bool)
    excluded[200:230] = True
    picked = greedy_coreset(
        torch.from_numpy(rows), 90, excluded=torch.from_numpy(excluded), start=40
    )
    expected = list(range(40))
    nearest = np.full(300, np.inf)
    for center in expected:
        nearest = np.minimum(nearest, ((rows - rows[center]) ** 2).sum(1))
    nearest[:40] = nearest[excluded] = -1
    while len(expected) < 90:
        expected.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((rows - rows[expected[-1]]) ** 2).sum(1))
        nearest[expected[-1]] = -1
    assert picked.indices.tolist() == expected


def test_nothing_is_drawn_where_rows_are_picked_beforehand() -> None:
    rows = torch.from_numpy(normal(100, 5))
    one, other = (greedy_coreset(rows, 30, seed=seed, start=10) for seed in (0, 1))
    assert torch.equal(one.indices, other.indices)
    assert greedy_coreset(rows, 10, start=10).indices.tolist() == list(range(10))
    with pytest.raises(ConfigurationError, match="expected 10 to 100"):
        greedy_coreset(rows, 9, start=10)


def test_excluded_rows_do_not_widen_the_radius() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [1000.0]], dtype=torch.float64)
    excluded = torch.tensor([False, False, False, True])
    assert greedy_coreset(rows, 3, excluded=excluded).radius == 0
    assert greedy_coreset(rows, 1, excluded=excluded).radius <= 3
    assert greedy_coreset(rows, 1).radius > 900


def test_one_row() -> None:
    found = greedy_coreset(torch.tensor([[3.0, 4.0]]), 1)
    assert found.indices.tolist() == [0]
    assert found.radius == 0


@pytest.mark.parametrize("kind", ["random", "clustered", "integer grid"])
def test_same_picks_in_float32(kind: str, block_rows: int) -> None:
    # float64 arithmetic on the float32 values: no two rows here are nearly equally far.
    rows = MAKERS[kind](600, 16).astype(np.float32)
    picks, radius = naive_coreset(rows.astype(np.float64), 60, seed=5)
    found = greedy_coreset(torch.from_numpy(rows), 60, seed=5)
    assert found.indices.tolist() == picks
    assert found.radius == pytest.approx(radius, rel=1e-5)


@pytest.mark.parametrize("kind", ["tight clusters", "tight clusters far from 0", "one outlier"])
def test_float32_covers_as_well_where_its_distances_are_coarse(kind: str, block_rows: int) -> None:
    rows = MAKERS[kind](600, 16).astype(np.float32).astype(np.float64)
    _, radius = naive_coreset(rows, 60, seed=5)
    found = greedy_coreset(torch.from_numpy(rows.astype(np.float32)), 60, seed=5)
    assert found.radius == pytest.approx(brute_force_radius(rows, found.indices), rel=1e-4)
    # Both lie within twice the best possible radius (Gonzalez), so neither beats the other by 2.
    assert found.radius <= 2 * radius


def brute_force_radius(rows: Rows, picks: torch.Tensor) -> float:
    centers = rows[picks.numpy()]
    return float(np.sqrt(np.square(rows[:, None] - centers[None]).sum(2)).min(1).max())


def test_near_copies_are_not_confused_with_their_neighbours() -> None:
    """||x||^2 + ||c||^2 - 2 x.c cannot tell picks apart that lie nearer than its rounding."""
    rng = np.random.default_rng(9)
    pairs = rng.normal(size=(40, 16)) + 300.0
    rows = np.vstack([pairs, pairs + 1e-7 * rng.normal(size=pairs.shape)] * 2)
    assert_same_picks(rows, 90, seed=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_radius_is_the_farthest_rows_distance(kind: str) -> None:
    rows = MAKERS[kind](500, 9)
    found = greedy_coreset(torch.from_numpy(rows), 25, seed=1)
    expected = brute_force_radius(rows, found.indices)
    assert found.radius == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_pick_lies_at_least_the_radius_from_every_other() -> None:
    """What makes the greedy a 2-approximation."""
    rows = normal(800, 5)
    found = greedy_coreset(torch.from_numpy(rows), 40)
    centers = torch.from_numpy(rows)[found.indices]
    apart = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(apart.fill_diagonal_(torch.inf).min()) >= found.radius


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
        elements=st.integers(-4, 4).map(float),
    ),
    st.data(),
)
def test_same_picks_whatever_the_rows(rows: Rows, data: st.DataObject) -> None:
    # Small integers: distances are exact, ties and copies abound.
    size = data.draw(st.integers(1, len(rows)))
    block = data.draw(st.integers(1, 30))
    seed = data.draw(st.integers(0, 2**31))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_BLOCK_ROWS", block)
        assert_same_picks(rows, size, seed)


def test_small_update_steps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.from_numpy(normal(3000, 6))
    expected = greedy_coreset(rows, 100)
    monkeypatch.setattr(nearest_center, "_UPDATE_ROWS", 37)
    found = greedy_coreset(rows, 100)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.radius == expected.radius


def test_the_seed_draws_the_first_pick_and_nothing_else() -> None:
    rows = torch.from_numpy(normal(500, 3))
    firsts = [int(greedy_coreset(rows, 1, seed=seed).indices[0]) for seed in range(12)]
    assert firsts == [first_pick(np.arange(500), seed) for seed in range(12)]
    assert len(set(firsts)) > 6
    torch.manual_seed(1)
    one = greedy_coreset(rows, 30, seed=7).indices
    torch.manual_seed(2)
    assert greedy_coreset(rows, 30, seed=7).indices.tolist() == one.tolist()


def test_the_rows_are_left_as_they_were() -> None:
    rows = torch.from_numpy(normal(100, 4))
    before = rows.clone()
    greedy_coreset(rows, 20)
    assert torch.equal(rows, before)


def test_progress_rises_to_the_size(block_rows: int) -> None:
    seen: list[int] = []
    greedy_coreset(torch.from_numpy(integer_grid(500, 6)), 200, on_progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[0] >= 2
    assert seen[-1] == 200


@pytest.mark.parametrize("size", [0, -1, 11])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"is {size}, expected 1 to 10"):
        greedy_coreset(torch.rand(10, 3), size)


def test_a_set_without_candidates_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="candidates"):
        greedy_coreset(torch.rand(4, 3), 1, excluded=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match="candidates"):
        greedy_coreset(torch.empty(0, 3), 1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [0, 19_999])
def test_rows_that_are_not_finite_are_refused(value: float, at: int) -> None:
    rows = torch.zeros(20_000, 2)
    rows[at, 1] = value
    with pytest.raises(ConfigurationError, match="NaN or infinite"):
        greedy_coreset(rows, 3)


@pytest.mark.parametrize(
    "rows", [torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5), torch.zeros(5, 2, 2)]
)
def test_rows_of_another_kind_are_refused(rows: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="floating rows"):
        greedy_coreset(rows, 1)


@pytest.mark.parametrize(
    ("rows", "ratio", "expected"),
    [(214_016, 0.01, 2140), (100, 1.0, 100), (100, 1, 100), (5, 0.01, 1), (1, 0.5, 1)],
)
def test_coreset_size(rows: int, ratio: float, expected: int) -> None:
    assert coreset_size(rows, ratio) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 10**7),
    st.floats(0, 1, exclude_min=True, allow_subnormal=False),
)
def test_coreset_size_is_always_one_that_can_be_picked(rows: int, ratio: float) -> None:
    assert 1 <= coreset_size(rows, ratio) <= rows
    assert coreset_size(rows, ratio) <= min(rows, max(1.0, rows * ratio + 1e-9))


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, 2, math.nan, math.inf])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match=r"coreset_ratio is .*\(0, 1\]"):
        coreset_size(100, ratio)


@pytest.mark.parametrize("dimension", [1, 64, 128])
def test_narrow_rows_are_compared_as_they_are(dimension: int) -> None:
    assert random_projection(dimension, 0) is None


def test_the_projection_follows_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = random_projection(384, 7)
    torch.manual_seed(2)
    again, other = random_projection(384, 7), random_projection(384, 8)
    assert first is not None and again is not None and other is not None
    assert first.shape == (384, 128)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_projection_keeps_distances_on_average() -> None:
    matrix = random_projection(1024, 3)
    assert matrix is not None
    rows = normal(300, 1024)
    whole = torch.pdist(torch.from_numpy(rows))
    projected = torch.pdist(torch.from_numpy(rows) @ matrix.double())
    ratios = projected / whole
    # A chi of 128 degrees: mean 1 - 1/512, standard deviation 1/16.
    assert float(ratios.mean()) == pytest.approx(1, abs=0.02)
    assert float(ratios.std()) == pytest.approx(1 / 16, rel=0.2)


@needs_cuda
@pytest.mark.parametrize("kind", MAKERS)
def test_cuda_picks_the_same_rows(kind: str) -> None:
    rows = MAKERS[kind](5000, 12)
    picks, radius = naive_coreset(rows, 300, seed=2)
    found = greedy_coreset(torch.from_numpy(rows).cuda(), 300, seed=2)
    assert found.indices.device.type == "cpu"
    assert found.indices.tolist() == picks
    assert found.radius == pytest.approx(radius, rel=1e-9, abs=1e-12)
