"""Shards of a coreset on a Ray that is not there: the same bank whoever does them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patchline.export.coreset import Coreset
from patchline.export.coreset_sharded import RunShards, Sharding, sharded_coreset
from patchline.export.fleet.shards import Claim, ShardsOnRay
from patchline.runtime.errors import ConfigurationError

ROWS = torch.rand(400, 8, generator=torch.Generator().manual_seed(5))
SIZE, SHARDS = 10, 6


class RayError(Exception):
    """As Ray's."""


class FakeRay:
    """Runs a task when it is sent, if a test says so.

    Args:
        begins: whether the task of this number finds a node.
        dies: whether it claims its shard and dies.
    """

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(
        self,
        begins: Callable[[int], bool] = lambda number: True,
        dies: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self._begins, self._dies = begins, dies
        self.options: list[dict[str, Any]] = []
        self.stored = 0
        self.most = 0
        # By identity, and kept: one that is gone would lend its identity to the next.
        self._off: dict[int, object] = {}

    @property
    def cancelled(self) -> int:
        """How many tasks were called off."""
        return len(self._off)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def put(self, value: object) -> SimpleNamespace:
        self.stored += 1
        self.most = max(self.most, self.stored - self.cancelled)
        return SimpleNamespace(value=value)

    def remote(self, function: Callable[..., Any]) -> Any:
        def begin(cover: Any, task: Any, claim: Claim, threads: int) -> SimpleNamespace:
            number = len(self.options)
            if self._dies(number):
                claim.take()
                return SimpleNamespace(value=RayError("died"))
            begun = self._begins(number)
            return SimpleNamespace(
                value=function(cover, task.value, claim, threads) if begun else RayError("pending")
            )

        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=begin)

        return SimpleNamespace(options=options)

    def get(self, reference: SimpleNamespace) -> Any:
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def cancel(self, reference: object) -> None:
        self._off[id(reference)] = reference


def picked(run: RunShards, most: int = 400) -> Coreset:
    def read(first: int, last: int) -> torch.Tensor:
        return ROWS[first:last]

    sharding = Sharding(SHARDS, 1.0, most, run)
    return sharded_coreset(read, torch.ones(len(ROWS), dtype=torch.bool), SIZE, sharding, seed=1)


@pytest.mark.parametrize(
    ("ray", "cancelled"),
    [
        (FakeRay(), 0),
        (FakeRay(begins=lambda number: False), SHARDS),
        (FakeRay(begins=lambda number: number % 2 == 0), SHARDS // 2),
        (FakeRay(dies=lambda number: number == 2), 0),
    ],
    ids=["all find a node", "none does", "half of them", "a worker dies"],
)
def test_the_same_bank_whoever_covers_the_shards(
    ray: FakeRay, cancelled: int, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    found, expected = picked(ShardsOnRay(ray, tmp_path, 1)), picked(map)
    assert torch.equal(found.indices, expected.indices)
    assert found.radius == expected.radius
    assert ray.cancelled == cancelled
    assert len(ray.options) == SHARDS
    assert ray.options[0]["num_cpus"] == 1
    assert ray.options[0]["memory"] > 1 << 30


def test_no_more_are_sent_than_the_cluster_has_threads_for(tmp_path: Path) -> None:
    ray, sent = FakeRay(begins=lambda number: False), list[int]()
    covers = ShardsOnRay(ray, tmp_path, 1)(lambda task: task, iter(range_of_tasks()))  # type: ignore[arg-type, return-value]
    for _ in covers:
        sent.append(len(ray.options))
    assert sent == [3, 4, 5, 5, 5]
    assert ray.most == 3


def range_of_tasks() -> list[Any]:
    return [SimpleNamespace(rows=torch.zeros(1, 1)) for _ in range(5)]


def test_a_cover_without_room_is_an_error_of_the_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Raise --memory-budget"):
        picked(ShardsOnRay(FakeRay(), tmp_path, 1), most=12)


def test_what_was_sent_is_called_off_where_the_class_fails(tmp_path: Path) -> None:
    ray = FakeRay(begins=lambda number: False)
    with pytest.raises(ConfigurationError):
        picked(ShardsOnRay(ray, tmp_path, 1), most=12)
    assert ray.cancelled == len(ray.options) == 3


def test_a_claim_is_taken_once(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "one")
    assert [claim.take(), claim.take()] == [True, False]
    assert not Claim(tmp_path / "gone" / "one").take()
