"""What ``export-model`` prints about an exported model: a table, or a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchline.export.fleet.outcome import Result

if TYPE_CHECKING:
    from patchline.export.precision.converted import Judged
    from patchline.runtime.contract import (
        Distillation,
        Manifest,
        MemoryBank,
        Threshold,
        TrainingSet,
    )


def print_export(
    path: Path,
    graph: Path | None,
    seconds: float,
    as_json: bool,
    converted: Judged | None,
    result: Result = Result.DONE,
) -> None:
    """Print what was exported, on stdout.

    Args:
        path: the model, or the bank.
        graph: the graph that the bank is for, if it is a bank.
        seconds: that it took.
        as_json: one line of JSON instead of a table.
        converted: what is known of a model in another precision than float32.
        result: what the call did for it, for the line of JSON.
    """
    from patchline.export.making.conversion_report import conversion_rows, time_row
    from patchline.runtime.bank import load_bank
    from patchline.runtime.contract import load_manifest, manifest_path

    manifest = load_manifest(manifest_path(path)) if graph is None else load_bank(path).manifest
    if as_json:
        files = {"model": str(path)} if graph is None else {"model": str(graph), "bank": str(path)}
        line: dict[str, Any] = {**files, "result": result.value, "seconds": round(seconds, 1)}
        if converted is not None:
            line["time_ratio"] = round(converted.pairs.time_ratio, 3)
        typer.echo(json.dumps(line | json.loads(manifest.to_json())))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(str(path)), show_header=False, title_justify="left")
    rows = _rows(manifest, path, graph, seconds)
    if converted is not None:
        rows[-1:-1] = [*conversion_rows(manifest), time_row(converted)]
    for name, value in rows:
        table.add_row(name, Text(value))
    Console(highlight=False).print(table)


def _rows(
    manifest: Manifest, path: Path, graph: Path | None, seconds: float
) -> list[tuple[str, str]]:
    threshold, parity = manifest.threshold, manifest.parity
    training, size = manifest.training_set, manifest.model_size
    rows = [
        ("pictures", _pictures(training)),
        ("backbone", f"{manifest.backbone.name}, weights {manifest.backbone.weights_source}"),
        ("frames", f"{size.height} x {size.width} px (height x width)"),
        *_method_rows(manifest),
        ("score", f"{manifest.score} ({manifest.method})"),
        ("threshold", f"{threshold.value:.4g}{_interval(threshold)}: {threshold.rule}"),
        ("file", _mebibytes(path)),
        ("time", f"{seconds:.0f} s"),
    ]
    if graph is not None:
        rows.insert(-1, ("graph of all classes", f"{graph}, {_mebibytes(graph)}"))
    if parity is not None:
        rows.insert(
            [name for name, _ in rows].index("file"),
            (
                "ONNX Runtime against PyTorch",
                f"image score within {parity.image_score_max_relative_error:.1e}, "
                f"map within {parity.anomaly_map_max_relative_error:.1e} ({parity.frames} frames)",
            ),
        )
    return rows


def _method_rows(manifest: Manifest) -> list[tuple[str, str]]:
    bank, training = manifest.memory_bank, manifest.distillation
    if bank is not None:
        size = f"{bank.rows} x {bank.dimension}, k = {bank.neighbors}"
        return [("memory bank", size), ("search", _search(bank))]
    return [("student", _student(training))] if training is not None else []


def _student(training: Distillation) -> str:
    text = (
        f"{training.epochs} epoch{'s' if training.epochs > 1 else ''} of batch "
        f"{training.batch_size}, loss {training.loss:.3g}"
    )
    if training.noise is not None:
        text += f", noise {training.noise.smallest:g} to {training.noise.largest:g}"
    return text


def _search(bank: MemoryBank) -> str:
    plan = bank.search
    if plan is None:
        why = f"; not pruned: {'; '.join(bank.search_problems)}" if bank.search_problems else ""
        return f"exact{why}"
    text = f"pruned: {plan.leading} of {bank.dimension} coordinates, {plan.candidates} candidates"
    if plan.found is None:
        return text
    return (
        f"{text}; all {bank.neighbors} neighbours of {plan.found.all:.2%} of the patches found, "
        f"the nearest of {plan.found.nearest:.2%} ({plan.found.images} pictures)"
    )


def _mebibytes(path: Path) -> str:
    return f"{path.stat().st_size / (1 << 20):.1f} MiB"


def _pictures(training: TrainingSet) -> str:
    parts = " + ".join(str(part.images) for part in training.parts)
    text = f"{training.images}" + (f" = {parts}" if parts else "")
    if training.calibration_images:
        text += f", of which {training.calibration_images} are kept out for the threshold"
    if training.skipped_unreadable:
        text += f" ({training.skipped_unreadable} unreadable left out)"
    return text


def _interval(threshold: Threshold) -> str:
    if threshold.interval is None:
        return ""
    low, high = threshold.interval
    return f" ({low:.4g} to {high:.4g})"
