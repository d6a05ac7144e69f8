"""What ``run-camera`` tells a person: the head before the run, the figures after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.runtime.cli.command import stderr_console

if TYPE_CHECKING:
    from patchline.runtime.camera.source import FrameSource
    from patchline.runtime.contract import Manifest
    from patchline.runtime.engine import Engine
    from patchline.runtime.verdict import Summary


def print_head(engine: Engine, source: FrameSource, threshold: float | None) -> None:
    """Say on stderr what judges what, by which threshold; ``threshold`` is the user's own."""
    manifest = engine.manifest
    pace = "live, newest frame" if source.is_live else "every frame"
    lines = (
        f"model      {manifest.class_name}: {manifest.method}, {manifest.score}, "
        f"{manifest.precision}, {manifest.model_size.height} x {manifest.model_size.width} px",
        f"engine     {engine.description}",
        f"source     {source.name} ({pace})",
        f"threshold  {_threshold(manifest, threshold)}",
    )
    for line in lines:
        stderr_console().print(line, markup=False, soft_wrap=True)


def print_bank(path: Path, manifest: Manifest, threshold: float | None) -> None:
    """Say on stderr that another memory bank judges from here on."""
    line = f"bank       {path}: {manifest.class_name}, threshold {_threshold(manifest, threshold)}"
    stderr_console().print(line, markup=False, soft_wrap=True)


def print_summary(summary: Summary) -> None:
    """Print the figures of a run on stderr."""
    from rich.table import Table

    table = Table(show_header=False, title="Summary", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for name, value in _rows(summary):
        table.add_row(name, value)
    stderr_console().print(table)


def _threshold(manifest: Manifest, given: float | None) -> str:
    own = manifest.threshold
    if given is None:
        return f"{own.value:.6g} ({own.rule})"
    return f"{given:.6g} (--threshold; the manifest says {own.value:.6g})"


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "frames", str(summary.frames)
    yield "anomalous", str(summary.anomalous)
    yield "dropped", str(summary.dropped)
    yield "skipped unreadable", str(summary.skipped_unreadable)
    yield "FPS", f"{summary.fps:.1f}"
    latencies = {"p50": summary.p50_ms, "p95": summary.p95_ms, "p99": summary.p99_ms}
    for name, value in latencies.items():
        yield f"latency {name}", "-" if value is None else f"{value:.1f} ms"
