"""A coreset in shards: covers of parts of the rows, merged (issue "Beyond one machine").

Each shard runs the greedy (Gonzalez 1985) for as many picks as the whole bank shall have, and goes
on until its radius is at most delta times what it was then; the greedy over all the shards' picks
makes the bank (Malkomes et al. 2015; Ceccarello, Pietracaprina and Pucci 2019, section 3).

The bound. Let OPT be the least radius of any so many rows. After k picks the greedy's farthest row
and its picks are k + 1 rows that lie at least its radius apart, two of which share a center of the
best set: the radius is at most 2 OPT, in a shard and in the union alike. So every row lies within
2 delta OPT of a pick of its shard, and that one within 2 OPT of the bank: **(2 + 2 delta) OPT**,
where the exact greedy promises 2 OPT. With delta 1 it is Malkomes' 4. Rows that are picked
beforehand are centers of every shard and of the best set, which changes nothing in this.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from patchline.export.coreset import Coreset, Greedy, greedy_coreset
from patchline.export.nearest_center import distances_to
from patchline.runtime.errors import ConfigurationError


@dataclass(frozen=True)
class ShardTask:
    """One shard.

    Attributes:
        rows: floating ``[n, D]``; the first ``start`` are those picked beforehand.
        excluded: bool ``[n]``, rows that are no candidates.
        size: picks of the whole bank.
        delta: as in :class:`Sharding`.
        most: picks there is room for.
        seed: of the first pick.
        start: rows picked beforehand.
    """

    rows: Tensor
    excluded: Tensor
    size: int
    delta: float
    most: int
    seed: int
    start: int


@dataclass(frozen=True)
class ShardCover:
    """A shard's picks, without those made beforehand.

    Attributes:
        picks: int64 ``[m]``, rows of the task, in order of picking.
        rows: these rows, ``[m, D]``.
        radius: largest distance from any candidate to its nearest pick.
    """

    picks: Tensor
    rows: Tensor
    radius: float


RunShards = Callable[[Callable[[ShardTask], ShardCover], Iterable[ShardTask]], Iterable[ShardCover]]
"""``map``, or what does the same elsewhere; it may take the tasks one at a time."""

ReadRows = Callable[[int, int], Tensor]
"""Gives rows ``start`` to ``stop`` (exclusive), ``[n, D]``."""


@dataclass(frozen=True)
class Sharding:
    """How a coreset is made in shards.

    Attributes:
        shards: their number.
        delta: in (0, 1]; what a shard's cover leaves of its radius at the size of the bank.
        most: rows that there is room for in all covers together.
        run: does the shards' tasks, and gives their results in the same order.
    """

    shards: int
    delta: float
    most: int
    run: RunShards = map


def default_shards(rows: int, size: int) -> int:
    """The number at which one shard, and the least that all covers hold, are about alike.

    It depends on nothing but the rows and the bank's size, so the same pictures give the same bank
    whatever memory there is.
    """
    return max(2, round(math.sqrt(rows / size)))


def shard_cover(task: ShardTask) -> ShardCover:
    """Cover one shard. A function of its argument alone, which may run in another process.

    Raises:
        ConfigurationError: the cover needs more picks than there is room for.
    """
    greedy = Greedy(task.rows, task.excluded)
    size = min(task.size, greedy.candidates)
    limit = torch.inf
    if size > 0:
        greedy.begin(task.start, task.seed)
        greedy.grow(min(size, task.most))
        if size <= task.most:
            limit = task.delta * task.delta * greedy.farthest
            greedy.grow(min(task.most, greedy.candidates), beyond=limit)
    if size > task.most or greedy.farthest > limit:
        raise ConfigurationError(
            f"a shard of {greedy.candidates:,} patches needs more than the {task.most:,} picks "
            f"that there is room for at a coreset_delta of {task.delta:g}. Raise --memory-budget "
            "or coreset_delta, or lower --coreset-ratio"
        )
    found = greedy.picked()
    picks = found.indices[task.start :]
    return ShardCover(picks, task.rows[picks.to(task.rows.device)], found.radius)


def sharded_coreset(
    read: ReadRows,
    candidates: Tensor,
    size: int,
    sharding: Sharding,
    *,
    seed: int = 0,
    start: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Coreset:
    """Pick ``size`` rows with only one shard's rows and all covers in memory.

    Args:
        read: gives rows; each is read twice.
        candidates: bool ``[N]``, rows that may be picked.
        size: number of picks, 1 to the number of candidates.
        sharding: the shards, of equal numbers of rows in their order.
        seed: of first picks.
        start: the first so many rows are picked beforehand, as for
            :func:`patchline.export.coreset.greedy_coreset`.
        on_progress: called with a number that rises to ``size``.

    Returns:
        The picks, with the radius over all candidates: measured, and no bound.

    Raises:
        ConfigurationError: ``size`` is out of range, a row is not finite, or a cover needs more
            picks than there is room for.
    """
    count = int(candidates.sum())
    if not max(1, start) <= size <= count:
        raise ConfigurationError(
            f"coreset size is {size}, expected {max(1, start)} to {count} candidates"
        )
    inherited = read(0, start)
    parts = _parts(start, len(candidates), sharding.shards)
    most = start + sharding.most // sharding.shards
    whole = _with(inherited, read, candidates)
    tasks = (ShardTask(*whole(*part), size, sharding.delta, most, seed, start) for part in parts)
    indices, rows = [torch.arange(start)], [inherited]
    done = _Share(size, len(parts) + 1, on_progress)
    for (first, _), cover in zip(parts, sharding.run(shard_cover, tasks), strict=True):
        indices.append(cover.picks - start + first)
        rows.append(cover.rows.to(inherited.device))
        done.one_more()
    union = torch.cat(rows)
    picked = greedy_coreset(union, size, seed=seed, start=start)
    chosen = torch.cat(indices)[picked.indices]
    radius = _radius(read, candidates, parts, union[picked.indices.to(union.device)])
    done.one_more()
    return Coreset(chosen, radius)


def _with(
    inherited: Tensor, read: ReadRows, candidates: Tensor
) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Gives a part's rows after the inherited ones, and which of them are no candidates."""

    def whole(first: int, last: int) -> tuple[Tensor, Tensor]:
        rows, excluded = read(first, last), ~candidates[first:last]
        if not len(inherited):  # a part is large: no copy of it
            return rows, excluded
        return torch.cat([inherited, rows]), torch.cat(
            [torch.zeros(len(inherited), dtype=torch.bool), excluded]
        )

    return whole


def _radius(
    read: ReadRows, candidates: Tensor, parts: list[tuple[int, int]], centers: Tensor
) -> float:
    farthest = 0.0
    for first, last in parts:
        distances = distances_to(centers, read(first, last), ~candidates[first:last])
        farthest = max(farthest, float(distances.max()))
    return farthest


def _parts(start: int, stop: int, shards: int) -> list[tuple[int, int]]:
    """Bounds of at most so many parts, none of them empty, alike to one row."""
    edges = [start + (stop - start) * at // shards for at in range(shards + 1)]
    return [(first, last) for first, last in itertools.pairwise(edges) if first < last]


class _Share:
    """Tells progress in equal steps."""

    def __init__(self, size: int, steps: int, tell: Callable[[int], None] | None) -> None:
        self._size, self._steps, self._tell, self._done = size, steps, tell, 0

    def one_more(self) -> None:
        self._done += 1
        if self._tell is not None:
            self._tell(self._size * self._done // self._steps)
