"""One-frame latency: a frame in memory at model size to scores and map, peers in turn.

Every peer begins with the same uint8 BGR frame and does its own conversion within the time: the
colour order, the scaling, the copy to its runtime. Workers stay resident; a block of frames of one
is followed by a block of the next (A B C A B C), with a pause between.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

from patchline.benchmarks.peers.catalogue import OWN, Peer
from patchline.benchmarks.peers.conversation import Worker
from patchline.benchmarks.peers.material import Plan, Shared, model, model_mib, shared
from patchline.benchmarks.peers.record import Record, Row, quartiles, spread

LEAST_ROUNDS, MOST_FRAMES = 3, 50
WARMUP = 1

Blocks = dict[str, list[list[float]]]


def measure_latency(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    """Rows per backbone, bank size and peer."""
    record = Record(plan.say)
    judged = [peer for peer in peers if peer.is_for_speed]
    for backbone in plan.backbones:
        for rows in plan.bank_rows:
            _measure_setting(plan, judged, backbone, rows, record)
    return record.document(
        what="uint8 frame at model size in memory to image score and map, conversion included",
        block_warmup=f"{WARMUP} frame; none where a frame takes longer than a block",
    )


def _measure_setting(
    plan: Plan, peers: list[Peer], backbone: str, rows: int, record: Record
) -> None:
    setting: Row = {"backbone": backbone, "bank_rows": rows}
    given = record.attempt({"peer": "all", **setting}, lambda: shared(plan, backbone))
    if given is None:
        return
    with contextlib.ExitStack() as resident:
        workers: dict[str, Worker] = {}
        facts: dict[str, Row] = {}
        for peer in peers:
            opened = record.attempt(
                {"peer": peer.name, **setting},
                lambda peer=peer: _open(plan, peer, backbone, rows),  # type: ignore[misc]
            )
            if opened is not None:
                worker, facts[peer.name] = opened
                workers[peer.name] = resident.enter_context(worker)
        blocks = take_turns(plan, workers, given, setting, record)
    record.rows += rows_of(blocks, setting, facts)


def _open(plan: Plan, peer: Peer, backbone: str, rows: int) -> tuple[Worker, Row]:
    folder = model(plan, peer, backbone, rows)
    worker = plan.judge(peer)
    try:
        loaded = worker.ask("load", folder=str(folder), threads=plan.threads)
    except BaseException:
        worker.close()
        raise
    precision = loaded.get("precision", "float32")
    return worker, {"model_mib": round(model_mib(peer, folder), 1), "precision": precision}


def take_turns(
    plan: Plan, workers: dict[str, Worker], given: Shared, setting: Row, record: Record
) -> Blocks:
    """Blocks of times in ms per peer; one that fails drops out and is noted."""
    frames: dict[str, int] = {}
    warmup: dict[str, int] = {}
    duration_s = 0.0
    for name, worker in list(workers.items()):
        asked = {"frames": given.frames, "count": 1, "warmup": 1}
        found = record.attempt(
            {"peer": name, **setting},
            lambda worker=worker, asked=asked: worker.ask("run", **asked),  # type: ignore[misc]
        )
        if found is None:
            workers.pop(name).close()
            continue
        frame_s = min(found["times_ms"]) / 1e3
        frames[name] = min(MOST_FRAMES, max(1, round(plan.block_s / frame_s)))
        warmup[name] = WARMUP if frames[name] > 1 else 0  # such a frame is its own warm-up
        duration_s += (frames[name] + warmup[name]) * frame_s + plan.pause_s
    rounds = rounds_within(plan.limit_s, duration_s, plan.rounds)
    plan.say(f"{setting['backbone']}, {setting['bank_rows']} rows: {rounds} rounds")
    blocks: Blocks = {name: [] for name in workers}
    for _ in range(rounds):
        for name in list(workers):
            time.sleep(plan.pause_s)
            asked = {"frames": given.frames, "count": frames[name], "warmup": warmup[name]}
            found = record.attempt(
                {"peer": name, **setting},
                lambda name=name, asked=asked: workers[name].ask("run", **asked),  # type: ignore[misc]
            )
            if found is None:
                workers.pop(name).close()
                blocks.pop(name)
            else:
                blocks[name].append(found["times_ms"])
    return blocks


def rounds_within(limit_s: float, round_s: float, wanted: int) -> int:
    """As many rounds as wanted, or as the time allows, and never fewer than three of them."""
    return min(wanted, max(LEAST_ROUNDS, int(limit_s / max(round_s, 1e-9))))


def rows_of(blocks: Blocks, setting: Row, facts: dict[str, Row]) -> list[Row]:
    """Medians and quartiles of all frames; Patchline over a peer, round by round, by blocks.

    Args:
        blocks: times in ms, block by block, by the peer's name.
        setting: what they share.
        facts: of each peer's model: ``model_mib`` and the ``precision`` that it computes in.
    """
    own = [statistics.median(block) for block in blocks.get(OWN, [])]
    rows = []
    for name, measured in blocks.items():
        row = {
            "peer": name,
            **setting,
            **spread([time_ms for block in measured for time_ms in block], "ms"),
            "rounds": len(measured),
            **facts[name],
        }
        if own and name != OWN:
            theirs = [statistics.median(block) for block in measured]
            row["patchline_over_peer"] = ratios(own, theirs)
        rows.append(row)
    return rows


def ratios(own: list[float], theirs: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratios pair by pair."""
    low, middle, high = quartiles([a / b for a, b in zip(own, theirs, strict=True)])
    return {"median": middle, "q1": low, "q3": high}
