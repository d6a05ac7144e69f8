"""Fit time and peak memory: picture files to a model on disk, each fit in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchline.benchmarks.peers.catalogue import Maker, Peer, makers
from patchline.benchmarks.peers.material import Plan, code_of, shared
from patchline.benchmarks.peers.record import Record, Row, spread

ROUNDS = 2


def measure_fit(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    """Rows per ratio and maker, of the first class; the makers take turns."""
    record, class_name = Record(plan.say), plan.classes[0]
    for ratio in plan.ratios:
        found: dict[str, list[Row]] = {}
        for turn in range(min(ROUNDS, plan.rounds)):
            for maker in makers(peers):
                if turn and not _is_repeated(found.get(maker.name, []), plan):
                    continue
                fitted = record.attempt(
                    {"peer": maker.name, "class_name": class_name, "coreset_ratio": ratio},
                    lambda maker=maker, ratio=ratio: fit_once(  # type: ignore[misc]
                        plan, maker, class_name, ratio
                    ),
                )
                if fitted is not None:
                    found.setdefault(maker.name, []).append(fitted)
        record.rows += [_row(name, class_name, ratio, fits) for name, fits in found.items()]
    return record.document(
        what="picture files to a model on disk; imports are in the memory, not in the time",
        notes=[
            "Patchline's fit also finds its threshold from held-out pictures (five folds) and "
            "checks the exported file; the peers do neither",
            "anomalib loads pictures in its own process (num_workers=0), saves a checkpoint and "
            "exports two formats",
            "a fit that takes longer than the limit of a setting is not repeated",
        ],
    )


def fit_once(plan: Plan, maker: Maker, class_name: str, ratio: float) -> Row:
    """One fit in a fresh process; its model stays in :func:`fitted_folder`.

    Raises:
        EngineError: it failed, or took too long.
    """
    plan.say(f"fitting {class_name}, ratio {ratio:g}, by {maker.name}")
    folder = fitted_folder(plan, maker, class_name, ratio)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.json").unlink(missing_ok=True)
    with plan.maker(maker) as worker:
        found = worker.ask(
            "fit",
            limit_s=plan.fit_limit_s,
            folder=str(folder),
            pictures=plan.pictures(class_name),
            backbone=plan.backbones[0],
            state=shared(plan, plan.backbones[0]).state,
            image_px=plan.image_px,
            ratio=ratio,
            threads=plan.threads,
        )
        found["base_mib"] = worker.hello["peak_mib"]
        found["peak_mib"] = worker.ask("memory")["peak_mib"]
    (folder / "made.json").write_text("{}")
    return found


def fitted_folder(plan: Plan, maker: Maker, class_name: str, ratio: float) -> Path:
    """Where the fitted model of a class lies."""
    given = shared(plan, plan.backbones[0]).folder.name
    name = f"{class_name}-{ratio:g}-{given}{code_of(maker)}"
    return (plan.work / "fits" / maker.name / name).resolve()


def _is_repeated(fits: list[Row], plan: Plan) -> bool:
    """Whether a second fit is worth its time: not where the first one failed or took long."""
    return bool(fits) and fits[0]["fit_s"] <= plan.limit_s


def _row(name: str, class_name: str, ratio: float, fits: list[Row]) -> Row:
    row = {
        "peer": name, "class_name": class_name, "coreset_ratio": ratio,
        "bank_rows": fits[0]["bank_rows"], **spread([fit["fit_s"] for fit in fits], "s"),
    }  # fmt: skip
    for part in ("embed_s", "coreset_s", "export_s"):
        if part in fits[0]:
            row[f"of_it_{part}"] = round(spread([fit[part] for fit in fits], "s")["median_s"], 3)
    for size in ("peak_mib", "base_mib"):
        row[size] = round(max(fit[size] for fit in fits), 1)
    return row
