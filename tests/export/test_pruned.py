"""The pruned search: its estimate, what it finds, and that it finds nothing it must not."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.export.neighbors import NearestNeighbors, smallest_in_groups
from patchline.export.pruned import (
    CORRELATION,
    PrunedNearestNeighbors,
    deeper_plans,
    default_plan,
    with_pruned_search,
)
from patchline.export.scores import SCORES
from patchline.export.ties import tie_allowance
from patchline.runtime.contract import PrunedSearch
from patchline.runtime.errors import ConfigurationError

from .conftest import ByScore

Rows = npt.NDArray[np.float64]
DIMENSION = 48


def normal(count: int, seed: int, decay: float = 0.9) -> Rows:
    """Rows whose coordinates matter less and less, turned at random: ``[count, 48]``."""
    drawn = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    turned, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(DIMENSION, DIMENSION)))
    return (drawn * decay ** np.arange(DIMENSION)) @ turned + 3.0


def search_in(bank: Rows, k: int, leading: int, candidates: int) -> PrunedNearestNeighbors:
    plan = PrunedSearch(leading=leading, candidates=candidates)
    return PrunedNearestNeighbors(torch.from_numpy(bank), k, plan)


def squared_distances(bank: Rows, queries: Rows) -> Rows:
    return np.square(queries[:, None] - bank[None]).sum(2)


def nearest(bank: Rows, queries: Rows, k: int) -> Rows:
    found: Rows = squared_distances(bank, queries).argsort(1)[:, :k]
    return found


class TestEstimate:
    def test_it_is_the_distance_with_half_the_product_of_the_rests(self) -> None:
        bank, queries, p = normal(70, 0), normal(11, 1), 7
        found = search_in(bank, 9, p, 32).estimate(torch.from_numpy(queries)).numpy()
        center = bank.mean(0)
        _, _, turned = np.linalg.svd(bank - center)  # another way to the principal components
        q, m = (queries - center) @ turned.T, (bank - center) @ turned.T
        rests = np.linalg.norm(q[:, p:], axis=1)[:, None] * np.linalg.norm(m[:, p:], axis=1)
        expected = (
            squared_distances(m[:, :p], q[:, :p])
            + np.square(q[:, p:]).sum(1)[:, None]
            + np.square(m[:, p:]).sum(1)
            - 2 * CORRELATION * rests
        )
        own = np.square(q).sum(1)[:, None]  # of the patch alone: changes no order
        assert found.shape == (11, 96)
        np.testing.assert_allclose(found[:, :70] + own, expected, rtol=1e-9, atol=1e-9)

    def test_rows_that_fill_up_are_never_near(self) -> None:
        bank, queries = normal(33, 0), normal(20, 1)
        found = search_in(bank, 9, 5, 33)(torch.from_numpy(queries))
        assert int(found.max()) < 33

    def test_with_every_coordinate_it_is_the_distance(self) -> None:
        bank, queries = normal(300, 0), normal(40, 1)
        found = search_in(bank, 9, DIMENSION, 9)(torch.from_numpy(queries))
        assert found.tolist() == nearest(bank, queries, 9).tolist()


class TestFound:
    @pytest.mark.parametrize("leading", [1, 5, 40])
    def test_with_every_row_a_candidate_it_is_exact(self, leading: int) -> None:
        bank, queries = normal(100, 2), normal(30, 3)
        found = search_in(bank, 9, leading, 100)(torch.from_numpy(queries))
        assert found.dtype == torch.int64
        assert found.tolist() == nearest(bank, queries, 9).tolist()

    @settings(max_examples=40, deadline=None)
    @given(
        rows=st.integers(1, 200),
        k=st.integers(1, 12),
        leading=st.integers(1, DIMENSION),
        spare=st.integers(0, 30),
        seed=st.integers(0, 1000),
    )
    def test_different_rows_nearest_first_and_none_nearer_than_the_nearest(
        self, rows: int, k: int, leading: int, spare: int, seed: int
    ) -> None:
        bank, queries = normal(rows, seed), normal(8, seed + 1)
        found = search_in(bank, k, leading, k + spare)(torch.from_numpy(queries)).numpy()
        count = min(k, rows)
        assert found.shape == (8, count)
        assert all(len(set(row)) == count and 0 <= min(row) <= max(row) < rows for row in found)
        distances = np.take_along_axis(squared_distances(bank, queries), found, axis=1)
        best = np.sort(squared_distances(bank, queries), axis=1)[:, :count]
        assert (np.diff(distances, axis=1) >= 0).all()
        assert (distances >= best).all()

    def test_nearly_all_neighbours_where_few_coordinates_hold_most(self) -> None:
        bank, queries = normal(3000, 4, decay=0.85), normal(500, 5, decay=0.85)
        found = search_in(bank, 9, 12, 32)(torch.from_numpy(queries)).numpy()
        expected = nearest(bank, queries, 9)
        assert (found[:, 0] == expected[:, 0]).mean() > 0.999
        assert (np.sort(found) == np.sort(expected)).all(1).mean() > 0.99

    def test_a_patch_alone_finds_what_it_finds_among_others(self) -> None:
        search = search_in(normal(500, 6), 9, 6, 16)
        queries = torch.from_numpy(normal(64, 7))
        alone = torch.cat([search(query.unsqueeze(0)) for query in queries])
        assert torch.equal(search(queries), alone)

    def test_float32_far_from_the_origin(self) -> None:
        bank, queries = normal(400, 8) + 100, normal(50, 9) + 100
        plan = PrunedSearch(leading=12, candidates=32)
        search = PrunedNearestNeighbors(torch.from_numpy(bank).float(), 1, plan)
        found = search(torch.from_numpy(queries).float()).numpy()
        distances = np.take_along_axis(squared_distances(bank, queries), found, axis=1)
        best = squared_distances(bank, queries).min(1, keepdims=True)
        assert best.mean() > 1
        np.testing.assert_allclose(distances, best, atol=0.25)  # of squares near 500,000

    def test_a_bank_of_equal_rows(self) -> None:
        bank = np.ones((64, DIMENSION))
        found = search_in(bank, 9, 4, 16)(torch.ones(3, DIMENSION, dtype=torch.float64))
        assert all(len(set(row)) == 9 for row in found.tolist())


class TestLastCandidate:
    """Where rounding may decide which row is the last candidate, a comparison must allow for it."""

    def test_the_gap_is_between_the_last_candidate_and_the_next_row(self) -> None:
        search, queries = search_in(normal(300, 12), 9, 6, 20), torch.from_numpy(normal(25, 13))
        ordered = np.sort(search.estimate(queries).numpy(), axis=1)
        np.testing.assert_allclose(search.last_gap(queries), ordered[:, 20] - ordered[:, 19])

    def test_there_is_none_where_every_row_is_a_candidate(self) -> None:
        search = search_in(normal(30, 12), 9, 6, 40)
        assert torch.isinf(search.last_gap(torch.from_numpy(normal(4, 13)))).all()

    def test_another_number_of_candidates_finds_what_a_search_with_it_does(self) -> None:
        bank, queries = normal(300, 12), torch.from_numpy(normal(25, 13))
        found = search_in(bank, 9, 2, 20).among(queries, 12)
        assert torch.equal(found, search_in(bank, 9, 2, 12)(queries))
        assert not torch.equal(found, search_in(bank, 9, 2, 20)(queries))

    def test_ties_there_are_allowed_for_at_their_patches_and_nowhere_else(
        self, by_score: ByScore
    ) -> None:
        detector, _ = by_score("noise-response")
        frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
        plan = PrunedSearch(leading=2, candidates=10)
        pruned = with_pruned_search(detector, plan)
        before = tie_allowance(pruned, frames)
        search = pruned.head.search
        assert isinstance(search, PrunedNearestNeighbors)
        rows = pruned.embedder(torch.from_numpy(frames)).flatten(0, 2)
        # A copy of a patch's last candidate, as if rounding could not tell which is the last.
        patch = 7
        last = int(smallest_in_groups(search.estimate(rows), 10)[patch, -1])
        assert search.rows < search.get_buffer("estimates").shape[1]
        search.get_buffer("estimates")[:, search.rows] = search.get_buffer("estimates")[:, last]
        search.rows += 1
        after = tie_allowance(pruned, frames)
        assert search.last_gap(rows)[patch] == 0
        assert after.patches > before.patches


class TestWithout:
    @pytest.mark.parametrize("kind", ["exact", "pruned"])
    def test_rows_left_out_are_not_found_and_come_back(self, kind: str) -> None:
        bank, queries = normal(120, 10), torch.from_numpy(normal(15, 11))
        plain = NearestNeighbors(torch.from_numpy(bank), 9)
        search = plain if kind == "exact" else search_in(bank, 9, 20, 60)
        own = np.arange(120) % 3 == 0
        before = search(queries)
        with search.without(torch.from_numpy(own)):
            inside = search(queries)
        others = np.flatnonzero(~own)
        expected = others[nearest(bank[~own], queries.numpy(), 9)]
        assert inside.tolist() == expected.tolist()
        assert torch.equal(search(queries), before)


class TestPlan:
    @pytest.mark.parametrize(
        ("dimension", "k", "leading", "candidates"),
        [(384, 9, 126, 32), (1024, 9, 318, 32), (64, 9, 30, 32), (8, 1, 8, 32), (384, 20, 126, 70)],
    )
    def test_default(self, dimension: int, k: int, leading: int, candidates: int) -> None:
        plan = default_plan(dimension, k)
        assert (plan.leading, plan.candidates) == (leading, candidates)

    @pytest.mark.parametrize(
        ("dimension", "k", "plans"),
        [
            (384, 9, [(126, 128), (190, 64)]),
            (1024, 9, [(318, 128), (510, 64)]),
            (8, 20, [(8, 280), (8, 140)]),
        ],
    )
    def test_deeper(self, dimension: int, k: int, plans: list[tuple[int, int]]) -> None:
        found = deeper_plans(dimension, k)
        assert [(plan.leading, plan.candidates) for plan in found] == plans

    @pytest.mark.parametrize(
        ("leading", "candidates"), [(DIMENSION + 1, 32), (4, 8)], ids=["too wide", "below k"]
    )
    def test_what_cannot_be_is_refused(self, leading: int, candidates: int) -> None:
        with pytest.raises(ConfigurationError, match="cannot be: expected 1 to 48 coordinates"):
            search_in(normal(50, 0), 9, leading, candidates)


@pytest.mark.parametrize("score", SCORES)
def test_a_detector_with_pruned_search_judges_the_same(by_score: ByScore, score: str) -> None:
    detector, _ = by_score(score)
    size, rows = detector.embedder.size, detector.head.search.rows
    frames = torch.randint(
        0, 256, (2, size.height, size.width, 3), dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    before = copy.deepcopy(detector.state_dict())
    plan = PrunedSearch(leading=20, candidates=rows)  # every row a candidate: the same neighbours
    pruned = with_pruned_search(detector, plan)
    assert isinstance(pruned.head.search, PrunedNearestNeighbors)
    for expected, found in zip(detector.predict(frames), pruned.predict(frames), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not isinstance(detector.head.search, PrunedNearestNeighbors)
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    if hasattr(pruned.head.score, "search"):
        assert pruned.head.score.search is pruned.head.search
