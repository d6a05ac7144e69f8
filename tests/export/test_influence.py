"""The closed forms against autograd, finite differences, Monte Carlo and plain numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchline.export.influence import (
    SIGMA_MAX,
    SIGMA_MIN,
    AdaptiveNoise,
    Influence,
    closed_form_influence,
    noise_response,
)
from patchline.runtime.contract import DistanceStatistics
from patchline.runtime.errors import ConfigurationError


def draw(patches: int, k: int, dimension: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Patches [N, D] and neighbours [N, k, D] in float64."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(patches, dimension, generator=generator, dtype=torch.float64)
    neighbors = torch.randn(patches, k, dimension, generator=generator, dtype=torch.float64)
    return embeddings, neighbors


def mean_distance(embeddings: Tensor, neighbors: Tensor) -> Tensor:
    return (embeddings.unsqueeze(1) - neighbors).norm(dim=2).mean(1)


def autograd_jacobian(embeddings: Tensor, neighbors: Tensor) -> Tensor:
    leaf = embeddings.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mean_distance(leaf, neighbors).sum(), leaf)
    return gradient


@pytest.mark.parametrize(("k", "dimension"), [(1, 1), (1, 40), (3, 7), (9, 384), (9, 1024)])
def test_the_jacobian_is_autograds(k: int, dimension: int) -> None:
    embeddings, neighbors = draw(20, k, dimension)
    found = closed_form_influence(embeddings, neighbors).jacobian
    expected = autograd_jacobian(embeddings, neighbors)
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(errors.max()) < 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_jacobian_is_autograds_in_float32_too() -> None:
    embeddings, neighbors = draw(20, 9, 384)
    found = closed_form_influence(embeddings.float(), neighbors.float()).jacobian
    expected = autograd_jacobian(embeddings, neighbors)
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(errors.max()) < 1e-5


def test_the_jacobian_is_what_disturbing_one_channel_after_the_other_shows() -> None:
    embeddings, neighbors = draw(6, 9, 32, seed=1)
    found = closed_form_influence(embeddings, neighbors).jacobian
    step = 1e-5
    for channel in range(32):
        shift = torch.zeros(32, dtype=torch.float64)
        shift[channel] = step
        change = mean_distance(embeddings + shift, neighbors) - mean_distance(
            embeddings - shift, neighbors
        )
        torch.testing.assert_close(found[:, channel], change / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_distances_are_in_the_neighbours_order() -> None:
    embeddings, neighbors = draw(5, 4, 8, seed=2)
    found = closed_form_influence(embeddings, neighbors)
    expected = (embeddings.unsqueeze(1) - neighbors).norm(dim=2)
    torch.testing.assert_close(found.distances, expected)
    torch.testing.assert_close(found.mean_distance, expected.mean(1))
    torch.testing.assert_close(found.norm, found.jacobian.norm(dim=1))


def test_a_neighbour_equal_to_the_patch_adds_nothing() -> None:
    embeddings, neighbors = draw(4, 3, 10, seed=3)
    neighbors[:, 0] = embeddings
    found = closed_form_influence(embeddings, neighbors)
    assert found.distances[:, 0].tolist() == [0.0] * 4
    # The other two terms stay, and the mean is still over three.
    expected = autograd_jacobian(embeddings, neighbors[:, 1:]) * 2 / 3
    torch.testing.assert_close(found.jacobian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_the_jacobian_is_autograds_where_rows_repeat_the_patch_or_each_other(k: int) -> None:
    embeddings, neighbors = draw(6, k, 40, seed=12)
    neighbors[:2, 0] = embeddings[:2]
    neighbors[1:3] = neighbors[1:3, :1]
    neighbors[3, 0] = embeddings[3] + 1e-9
    found = closed_form_influence(embeddings, neighbors).jacobian
    # Of the norm at 0, autograd takes the subgradient 0 too.
    expected = autograd_jacobian(embeddings, neighbors)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not found[1].any()
    assert bool(found[0].any()) == (k > 1)


@pytest.mark.parametrize("k", [1, 9])
def test_near_a_row_the_jacobian_is_autograds_in_float32_too(k: int) -> None:
    # As z sum(1/d) - sum(m/d) it would not be: that cancels.
    generator = torch.Generator().manual_seed(13)
    embeddings = torch.rand(20, 384, generator=generator) + 1
    offsets = 1e-4 * torch.randn(20, k, 384, generator=generator)
    neighbors = embeddings.unsqueeze(1) + offsets
    found = closed_form_influence(embeddings, neighbors).jacobian
    expected = autograd_jacobian(embeddings.double(), neighbors.double())
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(errors.max()) < 1e-6
    inverse = 1 / (embeddings.unsqueeze(1) - neighbors).norm(dim=2, keepdim=True)
    cancelled = (embeddings * inverse.sum(1) - (inverse * neighbors).sum(1)) / k
    lost = (cancelled - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(lost.min()) > 1e-5  # so the check above can tell the two apart


def test_a_patch_equal_to_all_its_neighbours_has_no_influence() -> None:
    embeddings, neighbors = draw(4, 9, 10, seed=4)
    neighbors[:] = embeddings.unsqueeze(1)
    found = closed_form_influence(embeddings, neighbors)
    assert not found.jacobian.any()
    assert not found.distances.any()
    assert found.norm.tolist() == [0.0] * 4
    sigma = noise(1.0, 1.0)(found)
    assert sigma.isfinite().all()
    assert noise_response(sigma, found.jacobian).tolist() == [0.0] * 4


def test_neighbours_within_the_duplicate_distance_give_no_direction() -> None:
    embeddings = torch.zeros(1, 2)
    neighbors = torch.tensor([[[-1e-5, 0.0], [0.0, -1e-3], [-2.0, 0.0]]])
    plain = closed_form_influence(embeddings, neighbors)
    torch.testing.assert_close(plain.jacobian, torch.tensor([[2 / 3, 1 / 3]]))
    gated = closed_form_influence(embeddings, neighbors, duplicate_distance=1e-4)
    torch.testing.assert_close(gated.jacobian, torch.tensor([[1 / 3, 1 / 3]]))
    # The distance itself stays, and the limit counts as equal.
    torch.testing.assert_close(gated.distances, plain.distances)
    at_the_limit = closed_form_influence(embeddings, neighbors[:, 2:], duplicate_distance=2.0)
    assert not at_the_limit.jacobian.any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.integers(1, 50),
    st.floats(-8, 8),
)
def test_the_norm_lies_between_0_and_1(seed: int, k: int, dimension: int, exponent: float) -> None:
    embeddings, neighbors = draw(5, k, dimension, seed)
    found = closed_form_influence(embeddings * 10**exponent, neighbors * 10**exponent)
    assert found.jacobian.isfinite().all()
    assert (found.norm >= 0).all()
    assert (found.norm <= 1 + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-5, 5))
def test_the_jacobian_knows_neither_scale_nor_place(seed: int, scale: float, shift: float) -> None:
    embeddings, neighbors = draw(5, 4, 6, seed)
    moved = closed_form_influence(embeddings * scale + shift, neighbors * scale + shift)
    still = closed_form_influence(embeddings, neighbors)
    torch.testing.assert_close(moved.jacobian, still.jacobian, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(moved.distances, still.distances * scale, rtol=1e-8, atol=1e-8)


def test_an_outlier_is_pulled_one_way_and_an_inlier_nowhere() -> None:
    _, neighbors = draw(1, 9, 64, seed=5)
    far = closed_form_influence(torch.full((1, 64), 100.0, dtype=torch.float64), neighbors)
    assert float(far.norm) > 0.999
    # Neighbours opposite each other cancel.
    both_ways = torch.cat([neighbors[:, :4], -neighbors[:, :4]], dim=1)
    inside = closed_form_influence(torch.zeros(1, 64, dtype=torch.float64), both_ways)
    assert float(inside.norm) < 1e-12


def noise(mean: float, std: float) -> AdaptiveNoise:
    return AdaptiveNoise(DistanceStatistics(mean=mean, std=std))


def influence_of(mean_distance: Tensor, jacobian: Tensor) -> Influence:
    return Influence(mean_distance.unsqueeze(1), mean_distance, jacobian)


def test_sigma_is_the_designs_formula() -> None:
    embeddings, neighbors = draw(30, 9, 48, seed=6)
    influence = closed_form_influence(embeddings, neighbors)
    found = noise(9.0, 0.75)(influence)

    differences = embeddings.numpy()[:, None] - neighbors.numpy()
    distances = np.sqrt((differences**2).sum(2))
    size = np.abs((differences / distances[:, :, None]).mean(1))
    channels = (size - size.mean(1, keepdims=True)) / size.std(1, keepdims=True)
    gate = (distances.mean(1, keepdims=True) - 9.0) / 0.75
    expected = 0.01 + (0.5 - 0.01) / (1 + np.exp(-(channels + 1.0 * gate)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_sigma_keeps_to_its_range(seed: int, mean: float, std: float, distance: float) -> None:
    jacobian = torch.randn(4, 12, generator=torch.Generator().manual_seed(seed))
    sigma = noise(mean, std)(influence_of(torch.full((4,), distance), jacobian))
    assert sigma.shape == (4, 12)
    assert (sigma >= SIGMA_MIN).all()
    assert (sigma <= SIGMA_MAX + 1e-7).all()


def test_sigma_grows_with_the_distance_and_with_the_channels_influence() -> None:
    jacobian = torch.randn(1, 20, generator=torch.Generator().manual_seed(7)).expand(50, -1)
    sigma = noise(3.0, 0.5)(influence_of(torch.linspace(1, 5, 50), jacobian))
    assert (sigma[1:] > sigma[:-1]).all()
    order = jacobian[0].abs().argsort()
    assert (sigma[:, order].diff(dim=1) >= 0).all()


def test_a_patch_alone_gets_the_sigma_it_gets_in_company() -> None:
    embeddings, neighbors = draw(8, 5, 16, seed=8)
    module = noise(4.0, 1.0)
    together = module(closed_form_influence(embeddings, neighbors))
    for at in range(8):
        alone = module(closed_form_influence(embeddings[at : at + 1], neighbors[at : at + 1]))
        torch.testing.assert_close(alone[0], together[at], rtol=1e-12, atol=0)


def test_channels_without_spread_give_a_finite_sigma() -> None:
    sigma = noise(1.0, 1.0)(influence_of(torch.ones(3), torch.zeros(3, 5)))
    torch.testing.assert_close(sigma, torch.full((3, 5), (SIGMA_MIN + SIGMA_MAX) / 2))


def test_distances_without_spread_give_a_finite_sigma() -> None:
    jacobian = torch.randn(3, 5)
    sigma = noise(1.0, 0.0)(influence_of(torch.tensor([0.0, 1.0, 2.0]), jacobian))
    assert sigma.isfinite().all()
    torch.testing.assert_close(sigma[0], torch.full((5,), SIGMA_MIN))
    torch.testing.assert_close(sigma[2], torch.full((5,), SIGMA_MAX))


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, torch.nan), (torch.nan, 1.0), (torch.inf, 1.0), (0.0, torch.inf), (0.0, -1.0)],
)
def test_statistics_that_cannot_be_are_refused(mean: float, std: float) -> None:
    statistics: Any = SimpleNamespace(mean=mean, std=std)
    with pytest.raises(ConfigurationError, match="expected finite"):
        AdaptiveNoise(cast(DistanceStatistics, statistics))


def test_the_response_is_the_norm_of_the_product() -> None:
    generator = torch.Generator().manual_seed(9)
    sigma = torch.rand(10, 30, generator=generator, dtype=torch.float64)
    jacobian = torch.randn(10, 30, generator=generator, dtype=torch.float64)
    expected = np.linalg.norm(sigma.numpy() * jacobian.numpy(), axis=1)
    np.testing.assert_allclose(noise_response(sigma, jacobian).numpy(), expected, rtol=1e-12)


def test_the_response_is_the_spread_of_the_distance_under_that_noise() -> None:
    embeddings, neighbors = draw(4, 9, 40, seed=10)
    influence = closed_form_influence(embeddings, neighbors)
    sigma = noise(8.0, 1.0)(influence)
    small = 1e-3  # small enough for the first order to hold
    generator = torch.Generator().manual_seed(11)
    draws = torch.randn(8000, 40, generator=generator, dtype=torch.float64)
    for at in range(4):
        disturbed = embeddings[at] + small * sigma[at] * draws
        spread = mean_distance(disturbed, neighbors[at].expand(8000, -1, -1)).std() / small
        expected = float(noise_response(sigma, influence.jacobian)[at])
        # The spread of 8000 draws is itself known within 0.8 %.
        assert float(spread) == pytest.approx(expected, rel=0.03)
