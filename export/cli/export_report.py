"""What ``export-model`` prints about an exported model: a table, or a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from patchline.export.precision.converted import Converted
    from patchline.runtime.contract import Manifest, MemoryBank, Threshold, TrainingSet


def print_export(
    path: Path, graph: Path | None, seconds: float, as_json: bool, converted: Converted | None
) -> None:
    """Print what was exported, on stdout.

    Args:
        path: the model, or the bank.
        graph: the graph that the bank is for, if it is a bank.
        seconds: that it took.
        as_json: one line of JSON instead of a table.
        converted: what is known of a model in another precision than float32.
    """
    from patchline.export.cli.conversion_report import conversion_rows, time_row
    from patchline.runtime.bank import load_bank
    from patchline.runtime.contract import load_manifest, manifest_path

    manifest = load_manifest(manifest_path(path)) if graph is None else load_bank(path).manifest
    if as_json:
        files = {"model": str(path)} if graph is None else {"model": str(graph), "bank": str(path)}
        line: dict[str, Any] = {**files, "seconds": round(seconds, 1)}
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
    bank, threshold, parity = manifest.memory_bank, manifest.threshold, manifest.parity
    training, size = manifest.training_set, manifest.model_size
    rows = [
        ("pictures", _pictures(training)),
        ("backbone", f"{manifest.backbone.name}, weights {manifest.backbone.weights_source}"),
        ("frames", f"{size.height} x {size.width} px (height x width)"),
        ("memory bank", f"{bank.rows} x {bank.dimension}, k = {bank.neighbors}"),
        ("search", _search(bank)),
        ("score", f"{manifest.score} ({manifest.method})"),
        ("threshold", f"{threshold.value:.4g}{_interval(threshold)}: {threshold.rule}"),
        ("file", _mebibytes(path)),
        ("time", f"{seconds:.0f} s"),
    ]
    if graph is not None:
        rows.insert(-1, ("graph of all classes", f"{graph}, {_mebibytes(graph)}"))
    if parity is not None:
        rows.insert(
            7,
            (
                "ONNX Runtime against PyTorch",
                f"image score within {parity.image_score_max_relative_error:.1e}, "
                f"map within {parity.anomaly_map_max_relative_error:.1e} ({parity.frames} frames)",
            ),
        )
    return rows


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
        text += f", of which {training.calibration_images} are kept out of the bank"
    if training.skipped_unreadable:
        text += f" ({training.skipped_unreadable} unreadable left out)"
    return text


def _interval(threshold: Threshold) -> str:
    if threshold.interval is None:
        return ""
    low, high = threshold.interval
    return f" ({low:.4g} to {high:.4g})"
