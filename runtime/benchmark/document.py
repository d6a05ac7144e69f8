"""What was measured as strict JSON; docs/benchmark-engine.md has its fields."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from patchline.runtime.benchmark.compare import Compared
from patchline.runtime.benchmark.device_state import DeviceState
from patchline.runtime.benchmark.frames import FramePool
from patchline.runtime.benchmark.machine import Machine
from patchline.runtime.benchmark.measure import Measured
from patchline.runtime.benchmark.phases import PHASES
from patchline.runtime.benchmark.stats import Summary, rounded, summarize
from patchline.runtime.benchmark.subject import Subject, mode_document
from patchline.runtime.benchmark.throughput import BatchRun
from patchline.runtime.benchmark.timing import Limits

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Circumstances:
    """What holds for the whole run.

    Attributes:
        date: when it began, with its time zone.
        limits: how long was measured.
        machine: what was measured on.
        before: its state before the first warm-up.
        after: its state right after the last call.
        warnings: everything that makes the figures less sure.
    """

    date: datetime
    limits: Limits
    machine: Machine
    before: DeviceState
    after: DeviceState
    warnings: list[str]


def benchmark_document(
    subject: Subject, pool: FramePool, measured: Measured, about: Circumstances, *, samples: bool
) -> dict[str, Any]:
    """Of one engine."""
    latency, phases = measured.latency, measured.phases
    document = {
        **_head("benchmark", about),
        "engine": subject.document(),
        "mode": mode_document(subject.engine.facts),
        "frames": _frames(pool),
        "latency": {
            "batch": latency.batch,
            "end_to_end": summary_document(summarize(latency.samples_ms)),
            "phases": {
                phase: summary_document(summarize(phases[phase])) if phases else None
                for phase in PHASES
            },
        },
        "throughput": [_throughput(run) for run in measured.runs],
        **_foot(about),
    }
    if samples:
        document["samples_ms"] = {
            "end_to_end": _rounded(latency.samples_ms),
            "phases": {phase: _rounded(phases[phase]) if phases else None for phase in PHASES},
            "throughput": [_rounded(run.samples_ms) for run in measured.runs],
        }
    return document


def comparison_document(
    subjects: tuple[Subject, Subject],
    pools: tuple[FramePool, FramePool],
    compared: Compared,
    about: Circumstances,
    *,
    samples: bool,
) -> dict[str, Any]:
    """Of two engines."""
    ratios = compared.ratios()
    both = [
        {
            **subject.document(),
            "mode": mode_document(subject.engine.facts),
            "frames": _frames(pool),
            "end_to_end": summary_document(summarize(compared.samples_ms(at))),
            "medians_ms": _rounded(compared.medians_ms(at)),
        }
        for at, (subject, pool) in enumerate(zip(subjects, pools, strict=True))
    ]
    document = {
        **_head("comparison", about),
        "batch": compared.batch,
        "rounds": len(ratios.pairs),
        "a": both[0],
        "b": both[1],
        "ratio_b_over_a": {
            "median": round(ratios.median, 4),
            "q1": round(ratios.q1, 4),
            "q3": round(ratios.q3, 4),
            "pairs": [round(ratio, 4) for ratio in ratios.pairs],
            "pairs_that_agree": ratios.agreeing,
        },
        **_foot(about),
    }
    if samples:
        document["samples_ms"] = {
            name: [_rounded(block) for block in compared.blocks_ms[at]]
            for at, name in enumerate("ab")
        }
    return document


def summary_document(summary: Summary) -> dict[str, float]:
    """The statistics by name."""
    return dataclasses.asdict(summary)


def _head(kind: str, about: Circumstances) -> dict[str, Any]:
    return {
        "type": kind,
        "schema_version": SCHEMA_VERSION,
        "date": about.date.isoformat(timespec="seconds"),
        "settings": dataclasses.asdict(about.limits),
    }


def _foot(about: Circumstances) -> dict[str, Any]:
    return {
        "machine": dataclasses.asdict(about.machine),
        "state": {
            "before": dataclasses.asdict(about.before),
            "after": dataclasses.asdict(about.after),
        },
        "warnings": about.warnings,
    }


def _frames(pool: FramePool) -> dict[str, Any]:
    return {"source": pool.source, "count": len(pool.frames), "seed": pool.seed}


def _throughput(run: BatchRun) -> dict[str, Any]:
    return {
        "batch": run.batch,
        "in_flight": run.in_flight,
        "frames_per_s": round(run.frames_per_s, 2),
        "elapsed_s": round(run.elapsed_s, 4),
        "call": summary_document(summarize(run.samples_ms)),
    }


def _rounded(samples_ms: list[float]) -> list[float]:
    return [rounded(time) for time in samples_ms]
