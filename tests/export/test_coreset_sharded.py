"""Covers in shards and their merge: the promised bounds, against brute force and against exact."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from patchline.export.config import make_settings
from patchline.export.coreset import Coreset, greedy_coreset
from patchline.export.coreset_sharded import (
    Sharding,
    ShardTask,
    default_shards,
    shard_cover,
    sharded_coreset,
)
from patchline.export.cross_fit import HeadSettings, choose_bank
from patchline.export.datasets import pictures_in
from patchline.export.describe import describe, state_of
from patchline.export.extend import settings_of
from patchline.export.features import TrainingFeatures
from patchline.export.fit import FittedModel, fit
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.export.row_store import RowStore
from patchline.runtime.contract import ModelSize, ShardedCoreset, parse_manifest
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import SilentSteps

from .drawn import CLASS_NAME, QUICK, quick_fit, refuse, settings_with, write_good

Rows = npt.NDArray[np.float64]
ROOM = 10**6


def normal(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dimension)))


def clusters(count: int, dimension: int) -> Tensor:
    centers = normal(9, dimension, 3)
    order = np.random.default_rng(4).integers(0, 9, count)
    return centers[order] + 1e-2 * normal(count, dimension, 5)


def copies(count: int, dimension: int) -> Tensor:
    return normal(max(2, count // 8), dimension)[torch.arange(count) % max(2, count // 8)]


MAKERS: dict[str, Callable[[int, int], Tensor]] = {
    "random": normal,
    "sorted": lambda n, d: normal(n, d).sort(0).values,  # every shard looks another way
    "clusters": clusters,
    "copies": copies,
    "identical": lambda n, d: torch.full((n, d), 0.1, dtype=torch.float64),
    "one outlier": lambda n, d: torch.vstack([1e-3 * normal(n - 1, d), torch.full((1, d), 1e3)]),
}


def task(rows: Tensor, size: int, delta: float, *, most: int = ROOM, start: int = 0) -> ShardTask:
    return ShardTask(rows, torch.zeros(len(rows), dtype=torch.bool), size, delta, most, 0, start)


def pick(
    rows: Tensor,
    size: int,
    sharding: Sharding,
    excluded: Tensor | None = None,
    start: int = 0,
    seed: int = 0,
) -> Coreset:
    candidates = torch.ones(len(rows), dtype=torch.bool) if excluded is None else ~excluded
    return sharded_coreset(
        lambda first, last: rows[first:last], candidates, size, sharding, seed=seed, start=start
    )


def radius_by_force(rows: Tensor, centers: Tensor) -> float:
    return float((rows[:, None] - centers[None]).square().sum(2).sqrt().min(1).values.max())


def best_radius(rows: Tensor, size: int, start: int = 0) -> float:
    """The least radius of any ``size`` rows that hold the first ``start``."""
    return min(
        radius_by_force(rows, rows[[*range(start), *chosen]])
        for chosen in itertools.combinations(range(start, len(rows)), size - start)
    )


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("delta", [0.1, 0.5, 1.0])
def test_a_cover_is_the_greedys_own_and_goes_on_to_its_limit(kind: str, delta: float) -> None:
    rows = MAKERS[kind](400, 3)
    at_size = greedy_coreset(rows, 20)
    cover = shard_cover(task(rows, 20, delta))
    picked = cover.picks.tolist()
    assert picked == greedy_coreset(rows, len(picked)).indices.tolist()
    assert torch.equal(cover.rows, rows[cover.picks])
    assert radius_by_force(rows, cover.rows) == pytest.approx(cover.radius, abs=1e-9)
    assert cover.radius <= delta * at_size.radius * (1 + 1e-12)
    if len(picked) > 20:  # and not one pick further
        assert greedy_coreset(rows, len(picked) - 1).radius > delta * at_size.radius


def test_a_cover_in_float32_ends_too() -> None:
    """A limit between two float32 values would be no limit for one side and one for the other."""
    for seed in range(20):
        rows = normal(300, 2, seed).float()
        cover = shard_cover(task(rows, 7, 1 / 3))
        assert cover.radius <= greedy_coreset(rows, 7).radius / 3 * (1 + 1e-6)
        assert len(set(cover.picks.tolist())) == len(cover.picks) < 300


def test_a_small_shard_is_covered_by_all_that_it_has() -> None:
    rows = normal(30, 4)
    excluded = torch.arange(30) % 3 != 0
    few = ShardTask(rows, excluded, 50, 0.5, ROOM, 0, 0)
    assert sorted(shard_cover(few).picks.tolist()) == list(range(0, 30, 3))
    none = ShardTask(rows, torch.ones(30, dtype=torch.bool), 50, 0.5, ROOM, 0, 0)
    assert shard_cover(none).picks.tolist() == []


@pytest.mark.parametrize("most", [19, 20, 40])
def test_a_cover_without_room_is_an_error(most: int) -> None:
    rows = normal(400, 3)
    needed = len(shard_cover(task(rows, 20, 0.2)).picks)
    assert needed > 40
    with pytest.raises(ConfigurationError, match=rf"400 patches needs more than the {most} picks"):
        shard_cover(task(rows, 20, 0.2, most=most))
    assert len(shard_cover(task(rows, 20, 0.2, most=needed)).picks) == needed


def test_a_task_and_its_result_travel_between_processes() -> None:
    asked = task(normal(50, 4), 5, 0.5)
    sent = pickle.loads(pickle.dumps(asked))
    here, there = shard_cover(asked), pickle.loads(pickle.dumps(shard_cover(sent)))
    assert torch.equal(here.picks, there.picks) and here.radius == there.radius


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(3, 9), st.integers(1, 3)),
        elements=st.integers(-8, 8).map(float),
    ),
    st.data(),
)
def test_the_bound_holds_against_the_best_possible(rows: Rows, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, min(4, len(rows))))
    start = data.draw(st.integers(0, size))
    delta = data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    sharding = Sharding(data.draw(st.integers(1, 4)), delta, ROOM)
    given_rows = torch.from_numpy(rows)
    found = pick(given_rows, size, sharding, start=start, seed=data.draw(st.integers(0, 99)))
    assert found.indices[:start].tolist() == list(range(start))
    assert len(set(found.indices.tolist())) == size
    measured = radius_by_force(given_rows, given_rows[found.indices])
    assert found.radius == pytest.approx(measured, abs=1e-9)
    assert measured <= (2 + 2 * delta) * best_radius(given_rows, size, start) + 1e-9


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("shards", [1, 3, 8])
def test_the_radius_is_within_the_bound_of_the_exact_one(kind: str, shards: int) -> None:
    """The exact greedy's radius is at most twice the best, and at least the best."""
    rows = MAKERS[kind](600, 6)
    exact = greedy_coreset(rows, 30)
    found = pick(rows, 30, Sharding(shards, 0.25, ROOM))
    assert found.radius <= 2.5 * exact.radius + 1e-9
    assert found.radius == pytest.approx(radius_by_force(rows, rows[found.indices]), abs=1e-9)


def test_excluded_rows_are_neither_picked_nor_counted() -> None:
    rows = torch.vstack([normal(300, 4), torch.full((20, 4), 1e3, dtype=torch.float64)])
    excluded = torch.arange(320) >= 300
    excluded[:50] = True  # a shard with few candidates
    found = pick(rows, 30, Sharding(6, 0.5, ROOM), excluded)
    assert not excluded[found.indices].any()
    assert found.radius < 100


def test_all_candidates_can_be_picked_and_not_one_more() -> None:
    rows = normal(40, 3)
    found = pick(rows, 40, Sharding(7, 1.0, ROOM))
    assert sorted(found.indices.tolist()) == list(range(40)) and found.radius == 0
    for size in (0, 41):
        with pytest.raises(ConfigurationError, match=f"is {size}, expected 1 to 40"):
            pick(rows, size, Sharding(7, 1.0, ROOM))


def test_only_one_shard_is_read_at_a_time_and_each_twice() -> None:
    rows, asked = normal(100, 3), []

    def read(first: int, last: int) -> Tensor:
        asked.append((first, last))
        return rows[first:last]

    done: list[int] = []
    sharded_coreset(
        read, torch.ones(100, dtype=torch.bool), 10, Sharding(3, 0.5, ROOM), on_progress=done.append
    )
    parts = [(0, 33), (33, 66), (66, 100)]
    assert asked == [(0, 0), *parts, *parts]
    assert done == [2, 5, 7, 10]


def test_tasks_may_be_done_elsewhere_all_at_once() -> None:
    seen: list[int] = []

    def backwards(step: Callable[[ShardTask], object], tasks: Iterable[ShardTask]) -> list[object]:
        given_tasks = list(tasks)
        seen.append(len(given_tasks))
        return [step(one) for one in reversed(given_tasks)][::-1]

    rows = normal(200, 5)
    elsewhere = pick(rows, 12, Sharding(4, 0.3, ROOM, backwards))  # type: ignore[arg-type]
    here = pick(rows, 12, Sharding(4, 0.3, ROOM))
    assert seen == [4]
    assert torch.equal(elsewhere.indices, here.indices) and elsewhere.radius == here.radius


def test_the_number_of_shards_balances_a_shard_and_the_covers() -> None:
    assert default_shards(214_016, 2140) == 10
    assert default_shards(1000, 1000) == 2


class TestMemory:
    def plan(self, budget: int, shards: int | None, images: int = 2000) -> MemoryPlan:
        return plan_memory(
            images=images, patches=1024, dimension=384, bank_rows=images * 1024 // 100,
            neighbors=9, budget_bytes=budget, shards=shards,
        )  # fmt: skip

    def needed(self, shards: int | None) -> int:
        with pytest.raises(ConfigurationError) as caught:
            self.plan(1 << 20, shards)
        return int(str(caught.value).split(" need ")[1].split(" MiB")[0].replace(",", "")) << 20

    def test_shards_take_far_less(self) -> None:
        exact, sharded = self.needed(None), self.needed(10)
        assert exact > 1 << 30
        # What is left of the projections: a tenth for a shard, a tenth for the covers.
        assert exact - sharded > 0.7 * 2000 * 1024 * 128 * 4
        assert self.plan(sharded, 10).peak_bytes <= sharded

    def test_the_sentence_names_shards_where_they_would_do(self) -> None:
        sharded = self.needed(10)
        with pytest.raises(ConfigurationError, match=r"--coreset sharded needs [\d,]+ MiB$"):
            self.plan(sharded, None)
        with pytest.raises(ConfigurationError, match=r"or lower --coreset-ratio$"):
            self.plan(sharded - (2 << 20), None)
        with pytest.raises(ConfigurationError, match=r"in 10 shards.*coreset_shards$"):
            self.plan(sharded - (2 << 20), 10)

    def test_what_room_is_left_is_the_covers_before_it_is_the_rows(self) -> None:
        tight, wide = self.plan(self.needed(10), 10), self.plan(1 << 40, 10)
        assert tight.cover_rows < 10 * (20480 + 1) + 4000 and tight.spill is not None
        assert wide.cover_rows >= 2000 * 1024 and wide.spill is None
        assert self.plan(wide.peak_bytes - 1, 10).spill is not None
        assert self.plan(1 << 40, None).cover_rows == 0

    def test_rows_are_projected_again_to_what_they_would_have_been(self) -> None:
        rows, matrix = torch.randn(40, 200), torch.randn(200, 128)
        store = RowStore(40, 200)
        store.append(rows)
        again = TrainingFeatures(store, torch.empty(0, 128), (Path("a"),) * 5, 8, 0, matrix)
        assert torch.allclose(again.projected(3, 39), (rows @ matrix)[3:39], atol=1e-5)
        held = TrainingFeatures(store, rows @ matrix, (Path("a"),) * 5, 8, 0, matrix)
        assert torch.equal(held.projected(3, 39), (rows @ matrix)[3:39])
        assert again.projected(5, 5).shape == (0, 128)


@pytest.fixture(scope="module")
def sharded(drawn_data: Path) -> FittedModel:
    """The drawn class with a bank chosen in three shards."""
    return quick_fit(drawn_data, coreset="sharded", coreset_shards=3, coreset_delta=0.5)


class TestFit:
    def test_the_bank_is_the_coreset_in_shards(
        self, sharded: FittedModel, fitted: FittedModel
    ) -> None:
        assert sharded.memory_bank.shape == fitted.memory_bank.shape
        assert not torch.equal(sharded.memory_bank, fitted.memory_bank)
        record = sharded.sharded
        assert record is not None and (record.shards, record.delta) == (3, 0.5)
        exact = fitted.coreset_radius
        assert exact is not None and record.covering_radius == sharded.coreset_radius
        assert 0 < record.covering_radius <= 3 * exact
        assert fitted.sharded is None

    def test_its_images_and_k_are_those_of_the_exact_one(
        self, sharded: FittedModel, fitted: FittedModel
    ) -> None:
        assert sharded.picture_digests == fitted.picture_digests
        assert len(sharded.normal.scores) == len(fitted.normal.scores)

    def test_held_out_images_are_in_no_shard(self) -> None:
        rows = torch.randn(60, 20)
        store = RowStore(60, 20)
        store.append(rows)
        features = TrainingFeatures(store, rows, (Path("a"),) * 6, 10)
        heads = HeadSettings(
            (2, 5), ModelSize(height=32, width=32), "distance", 3, 0.2, 0, torch.device("cpu"),
            sharding=Sharding(3, 0.5, ROOM),
        )  # fmt: skip
        found = choose_bank(features, np.array([True] * 5 + [False]), heads)
        assert len(found.indices) == 10 and int(found.indices.max()) < 50
        assert math.isfinite(found.radius)


def test_the_manifest_says_how_and_an_extension_keeps_to_it(sharded: FittedModel) -> None:
    settings = settings_with(coreset="sharded", coreset_shards=3, coreset_delta=0.5)
    manifest = parse_manifest(describe(sharded, settings, None).to_json(), "the manifest")
    bank = manifest.required_bank()
    assert isinstance(bank.coreset, ShardedCoreset)
    assert (bank.coreset.shards, bank.coreset.delta) == (3, 0.5)
    assert bank.coreset.covering_radius == sharded.coreset_radius
    base = state_of(sharded, manifest, "embedded")
    own = settings_of(base, {})
    assert (own.coreset, own.coreset_shards, own.coreset_delta) == ("sharded", 3, 0.5)
    with pytest.raises(ConfigurationError, match="coreset is 'exact', the model has 'sharded'"):
        settings_of(base, {"coreset": "exact"})


def test_an_extension_of_an_exact_bank_is_exact(fitted: FittedModel) -> None:
    manifest = describe(fitted, QUICK, None)
    assert manifest.required_bank().coreset is None
    base = state_of(fitted, manifest, "embedded")
    assert settings_of(base, {}).coreset == "exact"
    with pytest.raises(ConfigurationError, match="coreset is 'sharded', the model has 'exact'"):
        settings_of(base, {"coreset": "sharded"})


def test_an_extended_bank_in_shards_begins_with_its_old_rows(
    sharded: FittedModel, tmp_path: Path
) -> None:
    settings = settings_with(coreset="sharded", coreset_shards=3, coreset_delta=0.5)
    base = state_of(sharded, describe(sharded, settings, None), "embedded")
    write_good(tmp_path, 4, first_seed=800)
    own = settings_of(base, {"device": "cpu"})
    grown = fit(pictures_in(tmp_path, CLASS_NAME), own, SilentSteps(), refuse, base)
    old = len(sharded.memory_bank)
    assert torch.equal(grown.memory_bank[:old], sharded.memory_bank)
    assert len(grown.memory_bank) == int(16 * 64 * 0.4)
    assert grown.sharded is not None and grown.sharded.shards == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"coreset_delta": 0.5}, "coreset_delta would do nothing"),
        ({"coreset": "exact", "coreset_shards": 4, "coreset_delta": 1}, "coreset_delta and"),
        ({"coreset": "sharded", "coreset_delta": 0}, "coreset_delta: "),
        ({"coreset": "sharded", "coreset_delta": 1.1}, "coreset_delta: "),
        ({"coreset": "sharded", "coreset_shards": 0}, "coreset_shards: "),
        ({"coreset": "approximate"}, "coreset: "),
        ({"method": "reverse-distillation", "coreset": "sharded"}, "coreset is of a memory bank"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_settings(fields)
