"""``python -m patchline.benchmarks.charts``: charts of committed results, as SVG.

They are drawn from the files alone and are the same to the byte each time, with one version of
Matplotlib.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated

import typer

from patchline.benchmarks.charts.drawings import DRAWINGS
from patchline.benchmarks.charts.read import Results, read_results
from patchline.benchmarks.report import RESULTS
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.errors import DataError

FOLDER = "charts"


def draw_charts(
    results: Annotated[Path, typer.Option(help="Folder of the versions.")] = RESULTS,
    version: Annotated[
        str | None, typer.Option(help="Folder in it.  [default: the installed version]")
    ] = None,
) -> None:
    """Draw every chart that there are results for into the folder charts beside them."""
    folder = results / (version or importlib.metadata.version("patchline"))
    everything = read_results(folder)
    drawn: list[Path] = []
    for found in everything:
        charts = _charts(found, folder / FOLDER, everything)
        if charts is None:
            continue
        if not charts:
            stderr_console().print(f"{found.suite}: no samples in this file, nothing to draw")
        drawn += charts
    if not drawn:
        raise DataError(
            f"none of the {len(everything)} results in {folder} has a chart. Run "
            "patchline.benchmarks.latency or patchline.benchmarks.scaling first"
        )
    for path in drawn:
        typer.echo(path)


def _charts(found: Results, folder: Path, everything: list[Results]) -> list[Path] | None:
    """Files drawn, or ``None`` where no chart shows such results."""
    for beginning, draw in DRAWINGS.items():
        if found.suite.startswith(beginning):
            return draw(found, folder, everything)
    return None


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.charts``."""
    run_command(draw_charts)


if __name__ == "__main__":
    main()
