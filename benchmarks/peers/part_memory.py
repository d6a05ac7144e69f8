"""Peak memory of judging: a process of its own loads a model and judges a few frames."""

from __future__ import annotations

from typing import Any

from patchline.benchmarks.peers.catalogue import Peer
from patchline.benchmarks.peers.material import Plan, model, model_mib, shared
from patchline.benchmarks.peers.record import Record, Row

FRAMES = 10


def measure_memory(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    """Rows per bank size and peer, of the first backbone and all but the largest bank."""
    record, backbone = Record(plan.say), plan.backbones[0]
    for rows in sorted(plan.bank_rows)[: max(1, len(plan.bank_rows) - 1)]:
        for peer in (peer for peer in peers if peer.is_for_speed):
            setting = {"peer": peer.name, "backbone": backbone, "bank_rows": rows}
            found = record.attempt(
                setting,
                lambda peer=peer, rows=rows: _measure(plan, peer, rows),  # type: ignore[misc]
            )
            if found is not None:
                record.rows.append({**setting, **found})
    return record.document(
        what="largest resident set of a process that loads one model and judges frames",
        frames=FRAMES,
        notes=["base_mib is after the imports alone", "the memory of fits is in peers-fit"],
    )


def _measure(plan: Plan, peer: Peer, rows: int) -> Row:
    backbone = plan.backbones[0]
    folder = model(plan, peer, backbone, rows)
    plan.say(f"memory of {peer.name}, {rows} rows")
    with plan.judge(peer) as worker:
        worker.ask("load", folder=str(folder), threads=plan.threads)
        loaded = worker.ask("memory")["peak_mib"]
        worker.ask("run", frames=shared(plan, backbone).frames, count=FRAMES, warmup=0)
        peak = worker.ask("memory")["peak_mib"]
        return {
            "base_mib": round(worker.hello["peak_mib"], 1),
            "loaded_mib": round(loaded, 1),
            "peak_mib": round(peak, 1),
            "model_mib": round(model_mib(peer, folder), 1),
        }
