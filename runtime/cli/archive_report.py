"""What ``score-archive`` prints: one table or one line of JSON, and warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchline.runtime.cli.command import print_warning, stderr_console
from patchline.runtime.errors import DataError

if TYPE_CHECKING:
    from patchline.runtime.archive.run import ArchiveResult
    from patchline.runtime.archive.settings import Settings
    from patchline.runtime.archive.target import Work


def print_changes(work: Work) -> None:
    """Say on stderr what has become of the archive since the call before, and what is kept."""
    changes = work.changes
    for count, what in (
        (changes.new, "new since the call before"),
        (changes.gone, "gone before they were scored"),
        (changes.changed, "changed before they were scored"),
    ):
        if count:
            _say(f"pictures {what}: {count}")
    if work.done:
        _say(f"{len(work.done)} of {len(work.parts)} parts are there already")


def print_archive(
    out: Path, settings: Settings, result: ArchiveResult, workers: int, *, as_json: bool
) -> None:
    """Print on stdout what the target holds, and warn of pictures without a score.

    Raises:
        DataError: no picture has a score.
    """
    if as_json:
        typer.echo(json.dumps(_document(out, settings, result, workers), allow_nan=False))
    else:
        _print_table(out, result, workers)
    if not result.without_score:
        return
    sentence = (
        f"{result.without_score} of {result.pictures} pictures have no score: "
        f"{'; '.join(result.errors)}{'; …' if result.without_score > len(result.errors) else ''}. "
        "The column error has all of them"
    )
    if result.without_score == result.pictures:
        raise DataError(sentence)
    print_warning(sentence)


def print_interrupted(out: Path, work: Work) -> None:
    """Say on stderr how to go on."""
    from patchline.runtime.archive.part_file import part_name

    done = sum((out / part_name(part.number)).is_file() for part in work.parts)
    _say(f"{done} of {len(work.parts)} parts are in {out}; the same call goes on from there")


def _say(sentence: str) -> None:
    stderr_console().print(sentence, markup=False, soft_wrap=True)


def _document(out: Path, settings: Settings, result: ArchiveResult, workers: int) -> dict[str, Any]:
    rate = result.pictures_per_second
    return {
        "out": str(out),
        "class": settings.class_name,
        "model_sha256": settings.model_sha256,
        "threshold": settings.threshold,
        "pictures": result.pictures,
        "anomalous": result.anomalous,
        "unreadable": result.unreadable,
        "not_finite": result.not_finite,
        "parts_written": result.parts_written,
        "parts_kept": result.parts_kept,
        "pictures_scored": result.pictures_scored,
        "seconds": round(result.seconds, 3),
        "pictures_per_second": None if rate is None else round(rate, 1),
        "workers": workers,
    }


def _print_table(out: Path, result: ArchiveResult, workers: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rate = result.pictures_per_second
    rows = [
        ("pictures", f"{result.pictures:,}"),
        ("anomalous", f"{result.anomalous:,}"),
        ("unreadable", f"{result.unreadable:,}"),
        ("NaN or infinite", f"{result.not_finite:,}" if result.not_finite else ""),
        ("parts written", f"{result.parts_written:,}"),
        ("parts kept", f"{result.parts_kept:,}"),
        ("pictures per second", "" if rate is None else f"{rate:,.1f}"),
        ("workers", f"{workers}"),
    ]
    table = Table(title=Text(str(out)), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        if value:
            table.add_row(name, value)
    Console(highlight=False).print(table)
