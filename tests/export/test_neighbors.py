"""The two-level search is exact, whatever the bank's size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import NearestNeighbors as Reference

from patchline.export.neighbors import GROUP_ROWS, NearestNeighbors
from patchline.runtime.errors import ConfigurationError

Rows = npt.NDArray[np.float64]

SIZES = [1, 5, 9, 31, 32, 33, 64, 300, 1000]


def normal(count: int, dimension: int, seed: int) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, dimension))


def brute_force(bank: Rows, queries: Rows) -> Rows:
    """All distances [N, M], by differences."""
    return np.sqrt(np.square(queries[:, None] - bank[None]).sum(2))


def found_distances(search: NearestNeighbors, bank: Rows, queries: Rows) -> Rows:
    indices = search(torch.from_numpy(queries)).numpy()
    distances: Rows = np.take_along_axis(brute_force(bank, queries), indices, axis=1)
    return distances


@pytest.mark.parametrize("k", [1, 2, 9, 40])
@pytest.mark.parametrize("rows", SIZES)
def test_the_same_rows_in_the_same_order_as_brute_force(rows: int, k: int) -> None:
    bank, queries = normal(rows, 24, 0), normal(50, 24, 1)
    search = NearestNeighbors(torch.from_numpy(bank), k)
    found = search(torch.from_numpy(queries))
    assert found.dtype == torch.int64
    assert search.k == min(k, rows)
    expected = brute_force(bank, queries).argsort(1)[:, : min(k, rows)]
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("rows", SIZES)
def test_the_same_rows_as_scikit_learn_in_float32(rows: int) -> None:
    bank, queries = normal(rows, 16, 2).astype(np.float32), normal(40, 16, 3).astype(np.float32)
    found = NearestNeighbors(torch.from_numpy(bank), 9)(torch.from_numpy(queries))
    reference = Reference(n_neighbors=min(9, rows), algorithm="brute")
    reference.fit(bank.astype(np.float64))
    _, expected = reference.kneighbors(queries.astype(np.float64))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("crowded", [0, 1, 7])
def test_all_neighbours_in_one_group_are_found(crowded: int) -> None:
    """Nine nearest rows in a single group of 32, and eight other groups chosen for nothing."""
    bank = normal(8 * GROUP_ROWS, 6, 4) + 50
    first = crowded * GROUP_ROWS
    bank[first : first + 9] = normal(9, 6, 5) * 0.1
    found = NearestNeighbors(torch.from_numpy(bank), 9)(torch.zeros(1, 6, dtype=torch.float64))
    assert sorted(found[0].tolist()) == list(range(first, first + 9))


def test_neighbours_each_in_a_group_of_their_own_are_found() -> None:
    bank = normal(40 * GROUP_ROWS, 6, 6) + 50
    mine = [group * GROUP_ROWS + (7 * group) % GROUP_ROWS for group in range(3, 39, 4)]
    bank[mine] = normal(9, 6, 7) * 0.1
    found = NearestNeighbors(torch.from_numpy(bank), 9)(torch.zeros(1, 6, dtype=torch.float64))
    assert sorted(found[0].tolist()) == mine


def test_a_bank_of_copies_gives_the_right_distances() -> None:
    distinct = normal(7, 5, 8)
    bank = distinct[np.random.default_rng(9).integers(0, 7, 200)]
    queries = np.vstack([normal(30, 5, 10), distinct])
    search = NearestNeighbors(torch.from_numpy(bank), 12)
    expected = np.sort(brute_force(bank, queries), axis=1)[:, :12]
    np.testing.assert_allclose(found_distances(search, bank, queries), expected, atol=1e-12)
    for row in search(torch.from_numpy(queries)).tolist():
        assert len(set(row)) == 12  # copies, but never the same row twice


@pytest.mark.parametrize("rows", [1, 5, 31, 33, 65])
def test_the_filling_rows_are_never_found(rows: int) -> None:
    # Zero rows fill the bank: queries at zero lie on them, and far from every true row.
    bank = normal(rows, 4, 11) + 1e4
    search = NearestNeighbors(torch.from_numpy(bank).float(), 100)
    assert len(search.get_buffer("bank")) % GROUP_ROWS == 0
    found = search(torch.cat([torch.zeros(3, 4), 1e3 * torch.randn(20, 4)]))
    assert found.shape == (23, rows)
    for row in found.tolist():
        assert sorted(row) == list(range(rows))


def test_the_bank_is_held_once() -> None:
    search = NearestNeighbors(torch.rand(64, 8), 9)
    held = sum(tensor.numel() for tensor in search.state_dict().values())
    assert held == 64 * 8 + 64


def test_gather_gives_rows_in_the_shape_of_the_indices() -> None:
    bank = torch.from_numpy(normal(50, 3, 12))
    search = NearestNeighbors(bank, 4)
    indices = torch.tensor([[0, 49, 7, 7], [3, 2, 1, 0]])
    assert torch.equal(search.gather(indices), bank[indices])
    assert torch.equal(search.gather(indices[0]), bank[indices[0]])


def test_the_bank_given_is_left_alone() -> None:
    bank = torch.rand(32, 4)
    before = bank.clone()
    search = NearestNeighbors(bank, 3)
    search(torch.rand(5, 4))
    assert torch.equal(bank, before)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 80), st.integers(1, 5)),
        elements=st.integers(-9, 9).map(float),
    ),
    st.integers(1, 100),
    st.integers(0, 1000),
)
def test_exact_whatever_the_bank(bank: Rows, k: int, seed: int) -> None:
    # Small integers: the ranking is exact and ties abound, so distances are compared.
    queries = np.random.default_rng(seed).integers(-9, 10, (6, bank.shape[1])).astype(np.float64)
    search = NearestNeighbors(torch.from_numpy(bank), k)
    expected = np.sort(brute_force(bank, queries), axis=1)[:, : min(k, len(bank))]
    np.testing.assert_array_equal(found_distances(search, bank, queries), expected)


@pytest.mark.parametrize(
    "bank",
    [
        torch.empty(0, 4),
        torch.rand(4),
        torch.rand(2, 2, 2),
        torch.tensor([[0.0, torch.nan]]),
        torch.tensor([[torch.inf, 0.0]]),
    ],
    ids=["empty", "1-d", "3-d", "NaN", "infinite"],
)
def test_a_bank_that_cannot_be_is_refused(bank: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="finite memory bank"):
        NearestNeighbors(bank, 1)


@pytest.mark.parametrize("k", [0, -3])
def test_a_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(ConfigurationError, match=f"k is {k}"):
        NearestNeighbors(torch.rand(4, 2), k)
