"""Coreset time: every maker picks from the same rows, in turn; its reading of them is left out.

The textbook loops cost the same for every pick, so that a run which would take too long is
measured over fewer picks and extended along the line through two measurements, and labelled so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchline.benchmarks.peers.catalogue import OWN, Maker, Peer, makers
from patchline.benchmarks.peers.material import Plan, shared
from patchline.benchmarks.peers.part_latency import ratios
from patchline.benchmarks.peers.record import Record, Row, spread

RATIOS = (0.01, 0.1)
FEW, SOME = 20, 120
ROUNDS = 2

Time = Callable[[int], float]
"""Seconds for a number of picks."""


@dataclass(frozen=True)
class Timed:
    """Time of one coreset.

    Attributes:
        seconds: for all of its picks.
        picks_measured: so many of them were really picked.
    """

    seconds: float
    picks_measured: int


def measure_coreset(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    """Rows per ratio and maker, with the first backbone's rows."""
    record, backbone = Record(plan.say), plan.backbones[0]
    given = shared(plan, backbone)
    times: dict[tuple[str, float], list[Timed]] = {}
    rounds = min(ROUNDS, plan.rounds)
    for turn in range(rounds):
        for maker in makers(peers):
            rows = given.rows(maker)
            count, width = np.load(rows, mmap_mode="r").shape
            sizes = [max(1, int(count * ratio)) for ratio in RATIOS]
            plan.say(f"coreset by {maker.name}, round {turn + 1} of {rounds}")
            found = record.attempt(
                {"peer": maker.name, "round": turn + 1},
                lambda maker=maker, rows=rows, sizes=sizes: _measure(  # type: ignore[misc]
                    plan, maker, str(rows), sizes
                ),
            )
            for ratio, timed in zip(RATIOS, found or [], strict=False):
                times.setdefault((maker.name, ratio), []).append(timed)
    for (name, ratio), timed in times.items():
        picks = max(1, int(count * ratio))
        record.rows.append(_row(name, ratio, count, width, picks, timed, times))
    return record.document(
        what="rows in memory to picked indices, projection included",
        data=f"{plan.classes[0]}, {backbone}",
    )


def _row(
    name: str,
    ratio: float,
    count: int,
    width: int,
    picks: int,
    timed: list[Timed],
    times: dict[tuple[str, float], list[Timed]],
) -> Row:
    measured = min(one.picks_measured for one in timed)
    row = {
        "peer": name, "coreset_ratio": ratio, "rows": count, "dimension": width, "picks": picks,
        **spread([one.seconds for one in timed], "s"),
        "extrapolated": measured < picks, "picks_measured": measured,
    }  # fmt: skip
    own = times.get((OWN, ratio), [])
    if own and name != OWN:
        pairs = min(len(own), len(timed))
        row["patchline_over_peer"] = ratios(
            [one.seconds for one in own[:pairs]], [one.seconds for one in timed[:pairs]]
        )
    return row


def _measure(plan: Plan, maker: Maker, rows: str, sizes: list[int]) -> list[Timed]:
    with plan.maker(maker) as worker:

        def seconds(picks: int) -> float:
            time.sleep(plan.pause_s)
            asked: dict[str, Any] = {"rows": rows, "picks": picks, "threads": plan.threads}
            return float(worker.ask("coreset", **asked)["coreset_s"])

        seconds(min(sizes[0], FEW))  # the first one in a process allocates
        if not maker.is_linear:
            return [Timed(seconds(size), size) for size in sizes]
        return along_a_line(seconds, sizes, plan.limit_s)


def along_a_line(seconds: Time, sizes: list[int], limit_s: float) -> list[Timed]:
    """Time coresets whose every pick costs the same, each within about ``limit_s``.

    Args:
        seconds: measures a number of picks.
        sizes: wanted, ascending.
        limit_s: for one measurement.

    Returns:
        One per size; beyond what the limit allows, on the line through the smallest and the
        largest number of picks that was measured.
    """
    first = (min(FEW, sizes[0]), seconds(min(FEW, sizes[0])))
    if sizes[0] <= first[0]:
        largest = first
    else:
        probe = min(SOME, sizes[0])
        largest = (probe, seconds(probe))
    timed = []
    for size in sizes:
        a_pick_s = max((largest[1] - first[1]) / max(largest[0] - first[0], 1), 1e-9)
        affordable = first[0] + int(max(0.0, limit_s - first[1]) / a_pick_s)
        # Twice as many at least: a little more than what is measured already tells nothing new.
        if size > largest[0] and (size <= affordable or affordable >= 2 * largest[0]):
            picks = min(size, affordable)
            largest = (picks, seconds(picks))
            a_pick_s = (largest[1] - first[1]) / (largest[0] - first[0])
        measured = min(size, largest[0])
        timed.append(Timed(largest[1] + (size - largest[0]) * a_pick_s, measured))
    return timed
