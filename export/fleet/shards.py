"""Shards of a coreset as tasks of a Ray cluster, with a class's own worker among those at work.

A shard is done by whoever claims it first, in a file that only one can make (issue 9). The worker
of the class claims what nobody has begun instead of waiting for it: tasks that find no free node,
be it because other classes hold all of them, delay nothing and cannot lock each other out.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.export.coreset_sharded import ShardCover, ShardTask
from patchline.export.fleet.needs import PROCESS_BYTES
from patchline.export.fleet.threads import use_threads
from patchline.runtime.errors import ConfigurationError

Cover = Callable[[ShardTask], ShardCover]

_MOST_AHEAD = 8  # each lies in Ray's object store, which goes to disk where it is full
_COPIES = 3  # of a shard's rows: as they came, as the greedy holds them, and its picks


@dataclass(frozen=True)
class Claim:
    """A shard that one process alone will do.

    Attributes:
        file: that whoever does it makes; its folder is seen by all nodes.
    """

    file: Path

    def take(self) -> bool:
        """Whether the shard is now this process's."""
        try:
            self.file.touch(exist_ok=False)
        except OSError:  # taken, or the call is over and its folder gone
            return False
        return True


@dataclass(frozen=True)
class _Sent:
    """A shard that was sent: references of its rows, which are not kept here, and of its cover."""

    task: Any
    claim: Claim
    cover: Any


class ShardsOnRay:
    """Does what ``map`` does for shards: the same results, in the same order.

    Args:
        ray: the module, connected.
        notes: folder for claims that all nodes see; it is there, and empty of them.
        threads: CPU threads of each shard; as many as here, so that the numbers are the same.
    """

    def __init__(self, ray: Any, notes: Path, threads: int) -> None:
        self._ray, self._notes, self._threads = ray, notes, threads
        self._made = 0

    def __call__(self, cover: Cover, tasks: Iterable[ShardTask]) -> Iterator[ShardCover]:
        """Cover shards.

        Args:
            cover: covers one of them, here or elsewhere.
            tasks: the shards; taken a few ahead of those that are done.

        Raises:
            PatchlineError: of ``cover``; one that came up elsewhere is a ConfigurationError.
        """
        coming, window = iter(tasks), deque[_Sent]()
        try:
            while self._fill(window, cover, coming):
                first = window[0]
                yield self._result(first, cover)
                window.popleft()
        finally:
            for sent in window:
                self._call_off(sent)

    def _fill(self, window: deque[_Sent], cover: Cover, coming: Iterator[ShardTask]) -> bool:
        """Send what there is room for; whether there is a shard at all."""
        ahead = self._ahead()
        while len(window) < ahead:
            task = next(coming, None)
            if task is None:
                break
            window.append(self._send(cover, task))
        return bool(window)

    def _ahead(self) -> int:
        there = float(self._ray.cluster_resources().get("CPU", 0))
        return max(1, min(_MOST_AHEAD, int(there) // self._threads))

    def _send(self, cover: Cover, task: ShardTask) -> _Sent:
        self._made += 1
        claim = Claim(self._notes / f"shard-{self._made}.claim")
        stored = self._ray.put(task)
        remote = self._ray.remote(cover_claimed).options(
            num_cpus=self._threads,
            memory=PROCESS_BYTES + _COPIES * task.rows.numel() * task.rows.element_size(),
            max_retries=0,
            name="shard",
        )
        return _Sent(stored, claim, remote.remote(cover, stored, claim, self._threads))

    def _result(self, sent: _Sent, cover: Cover) -> ShardCover:
        found = None
        if sent.claim.take():
            self._call_off(sent)
        else:
            with contextlib.suppress(self._ray.exceptions.RayError):  # its worker or node died
                found = self._ray.get(sent.cover)
        if isinstance(found, str):
            raise ConfigurationError(found)
        return found if isinstance(found, ShardCover) else cover(self._ray.get(sent.task))

    def _call_off(self, sent: _Sent) -> None:
        sent.claim.take()  # one that has not begun gives up at once
        with contextlib.suppress(Exception):  # it may have ended by itself
            self._ray.cancel(sent.cover)


def cover_claimed(
    cover: Cover, task: ShardTask, claim: Claim, threads: int
) -> ShardCover | str | None:
    """Cover a shard in a worker: its cover, a sentence about why not, or ``None`` if it is taken.

    Args:
        cover: covers it.
        task: the shard.
        claim: of the shard.
        threads: CPU threads that it may use.
    """
    if not claim.take():
        return None
    use_threads(threads)
    try:
        return cover(task)
    except ConfigurationError as error:
        return str(error)
