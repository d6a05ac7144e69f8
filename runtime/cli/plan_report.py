"""What ``build-engine`` prints of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from patchline.runtime.engine.plans.record import PlanRecord

_MIB = 1 << 20


def print_plan(
    plan: Path, record: PlanRecord, seconds: float, *, is_new: bool, as_json: bool
) -> None:
    """Print on stdout what lies at ``plan`` now: a table, or one line of JSON."""
    if as_json:
        result = {
            "plan": str(plan),
            "built": is_new,
            "seconds": round(seconds, 1),
            "size_bytes": plan.stat().st_size,
        }
        typer.echo(json.dumps(result | json.loads(record.to_json())))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not is_new:
        typer.echo(f"{plan} is up to date")
    table = Table(title=Text(str(plan)), show_header=False, title_justify="left")
    for name, value in _rows(plan, record, seconds):
        table.add_row(name, Text(value))
    Console(highlight=False).print(table)


def _rows(plan: Path, record: PlanRecord, seconds: float) -> list[tuple[str, str]]:
    options, device = record.options, record.device
    workspace = options.workspace_bytes
    rows: list[tuple[str, Any]] = [
        ("size", f"{plan.stat().st_size / _MIB:.1f} MiB"),
        ("time", f"{seconds:.1f} s"),
        ("batch", ":".join(map(str, options.batch))),
        ("bank rows", options.bank_rows and ":".join(map(str, options.bank_rows))),
        ("workspace", f"{workspace / _MIB:.0f} MiB" if workspace else "all there is"),
        ("float32 products", "rounded to TF32" if options.tf32 else "exact"),
        (
            "GPU",
            f"{device.gpu} ({device.compute_capability})"
            if device
            else "none: a check, not to be run",
        ),
        ("built by", f"{record.flavour} {record.version}"),
    ]
    return [(name, value) for name, value in rows if value]
