"""Learning rate, noise and order of the pictures beside tables by hand."""

from __future__ import annotations

import pytest

from patchline.export.config_train import TrainSettings
from patchline.export.distillation.schedule import (
    batches_of_epoch,
    derived_seed,
    learning_rate,
    noise_strength,
)


def test_the_rate_rises_step_by_step_and_falls_once() -> None:
    settings = TrainSettings(epochs=5, warmup_epochs=2, lr=0.8, decay_at=0.8)
    found = [learning_rate(step, 2, settings) for step in range(10)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.08, 0.08])


def test_the_presets_rate() -> None:
    settings = TrainSettings()  # 100 epochs, batch 8, warm-up 5
    steps = 27
    table = {0: 0.005 / 135, 134: 0.005, 135: 0.005, 80 * 27 - 1: 0.005, 80 * 27: 0.0005}
    for step, expected in table.items():
        assert learning_rate(step, steps, settings) == pytest.approx(expected)
    larger = TrainSettings(batch_size=16)
    assert learning_rate(1000, steps, larger) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("epochs", "decay_at", "first"),
    [(100, 0.28, 28), (3, 0.8, 3), (10, 0.81, 9), (1, 0.5, 1), (7, 1.0, 7)],
)
def test_the_decays_first_epoch(epochs: int, decay_at: float, first: int) -> None:
    settings = TrainSettings(epochs=epochs, warmup_epochs=0, lr=1.0, decay_at=decay_at)
    found = [learning_rate(epoch, 1, settings) for epoch in range(epochs)]
    assert found == pytest.approx([1.0] * first + [0.1] * (epochs - first))


def test_a_warmup_longer_than_the_training_never_ends() -> None:
    settings = TrainSettings(epochs=2, warmup_epochs=4, lr=0.4, decay_at=1.0)
    assert [learning_rate(step, 1, settings) for step in range(2)] == pytest.approx([0.1, 0.2])


def test_the_noise_rises_by_epochs() -> None:
    settings = TrainSettings(noise=True, noise_warmup_epochs=4)
    assert [noise_strength(epoch, settings) for epoch in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert noise_strength(0, TrainSettings(noise=True, noise_warmup_epochs=0)) == 1


def test_an_epoch_shows_every_picture_once() -> None:
    batches = batches_of_epoch(11, 4, 0, 0)
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(number for batch in batches for number in batch) == list(range(11))
    assert [number for batch in batches for number in batch] != list(range(11))


def test_a_last_batch_of_one_picture_is_left_out() -> None:
    left_out = set()
    for epoch in range(20):
        batches = batches_of_epoch(9, 4, 0, epoch)
        assert [len(batch) for batch in batches] == [4, 4]
        left_out |= set(range(9)) - {number for batch in batches for number in batch}
    assert len(left_out) > 4  # another one each time


def test_the_order_follows_seed_and_epoch_alone() -> None:
    assert batches_of_epoch(50, 8, 1, 2) == batches_of_epoch(50, 8, 1, 2)
    orders = {str(batches_of_epoch(50, 8, seed, epoch)) for seed in (0, 1) for epoch in range(5)}
    assert len(orders) == 10


def test_derived_seeds_are_different_and_in_range() -> None:
    seeds = {
        derived_seed(seed, purpose, *numbers)
        for seed in (0, 1, (1 << 63) - 1)
        for purpose in ("order", "noise")
        for numbers in ((0,), (1,), (0, 1), (1, 0), (11,), (1, 1))
    }
    assert len(seeds) == 36
    assert all(0 <= seed < 1 << 63 for seed in seeds)
