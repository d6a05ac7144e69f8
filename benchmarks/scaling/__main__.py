"""``python -m patchline.benchmarks.scaling``: time and memory against size, and the laws in them.

Four suites: ``bank`` (rows of the memory bank), ``image`` (side of the frames), ``batch`` (frames
in a call) and ``fit`` (training images), each written to a file of its own as soon as it is
through.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import torch
import typer

from patchline.benchmarks.report import write_result
from patchline.benchmarks.scaling.collect import collect, report
from patchline.benchmarks.scaling.fit_point import DIMENSION, NEIGHBORS, PARTS
from patchline.benchmarks.scaling.models import check_search
from patchline.benchmarks.scaling.suites import LEAST_CALLS, SIZES, SUITES, Options, parse_sizes
from patchline.export.config import parse_names
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.errors import ConfigurationError, DataError


def benchmark_scaling(
    only: Annotated[str, typer.Option(help="Suites, with commas.")] = ",".join(SUITES),
    search: Annotated[str, typer.Option(help="Ways to search, with commas.")] = "exact",
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    bank: Annotated[str, typer.Option(help="Rows of the bank, with commas.")] = "",
    image: Annotated[str, typer.Option(help="Sides of the frames in px, with commas.")] = "",
    batch: Annotated[str, typer.Option(help="Frames in a call, with commas.")] = "",
    fit: Annotated[str, typer.Option(help="Training images, with commas.")] = "",
    bank_rows: Annotated[int, typer.Option(min=9, help="Where they do not vary.")] = 2048,
    image_size: Annotated[int, typer.Option(min=32, help="Likewise, in pixels.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Visits to each point.")] = 4,
    seconds: Annotated[float, typer.Option(min=0, help="Of a visit to a model.")] = 1.5,
    fit_rounds: Annotated[int, typer.Option(min=1, help="Visits to each point of fit.")] = 2,
    fit_grid: Annotated[
        int, typer.Option(min=2, help="Patches along a side of a training image.")
    ] = 8,
    ratio: Annotated[float, typer.Option(help="Coreset ratio of fit.")] = 0.01,
    budget_mib: Annotated[int, typer.Option(min=1, help="Memory budget of fit.")] = 1024,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
) -> None:
    """Measure every point in a process of its own, several times, and fit the laws."""
    suites, searches = parse_names(only), parse_names(search)
    _check_names(suites, searches)
    given = {"bank": bank, "image": image, "batch": batch, "fit": fit}
    sizes = {name: parse_sizes(given[name]) if given[name] else SIZES[name] for name in suites}
    console, failures = stderr_console(), list[str]()
    for name in suites:
        with tempfile.TemporaryDirectory(prefix="patchline-scaling-") as folder:
            options = Options(
                backbone=backbone,
                searches=searches,
                image_size=image_size,
                bank_rows=bank_rows,
                seconds=seconds,
                threads=threads,
                grid=fit_grid,
                ratio=ratio,
                budget_mib=budget_mib,
                folder=Path(folder),
            )
            visits = fit_rounds if name == "fit" else rounds
            tell = partial(console.print, soft_wrap=True)
            results = _run(name, options, sizes[name], visits, tell)
        path = write_result(f"scaling-{name}", results, out)
        for line in _laws_in_words(results):
            typer.echo(line)
        failures += _failures(results)
        console.print(f"written to {path}")
    if failures:
        raise DataError(f"{len(failures)} points failed, the others are written. {failures[0]}")


def _run(
    name: str, options: Options, sizes: tuple[int, ...], rounds: int, tell: Any
) -> dict[str, Any]:
    all_series = SUITES[name](options, sizes, tell)
    found = collect(all_series, rounds, tell)
    settings = _fit_settings(options) if name == "fit" else _engine_settings(options)
    return {
        **settings,
        "threads": options.threads or "one per core",
        "rounds": rounds,
        "order": "ascending and descending in turn, each point in a process of its own",
        "series": [report(series, found[series.name]) for series in all_series],
    }


def _engine_settings(options: Options) -> dict[str, Any]:
    return {
        "backbone": options.backbone,
        "searches": list(options.searches),
        "image_size_px": options.image_size,
        "bank_rows": options.bank_rows,
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "visit_s": options.seconds,
        "least_calls": LEAST_CALLS,
    }


def _fit_settings(options: Options) -> dict[str, Any]:
    return {
        "data": "drawn patch embeddings, without the backbone",
        "parts": list(PARTS),
        "patches_per_image": options.grid**2,
        "dimension": DIMENSION,
        "neighbors": NEIGHBORS,
        "coreset_ratio": options.ratio,
        "fixed_rows": options.bank_rows,
        "memory_budget_mib": options.budget_mib,
        "pytorch": torch.__version__,
    }


def _check_names(suites: tuple[str, ...], searches: tuple[str, ...]) -> None:
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise ConfigurationError(
            f"only is {', '.join(unknown) or 'empty'}, expected some of: {', '.join(SUITES)}"
        )
    if not searches:
        raise ConfigurationError("search is empty, expected the name of one, such as exact")
    for name in searches:
        check_search(name)


def _laws_in_words(results: dict[str, Any]) -> list[str]:
    """One line for each law."""
    lines = []
    for series in results["series"]:
        for quantity, law in series.get("laws", {}).items():
            power = law["power"]
            low, high = power["exponent_95"]
            lines.append(
                f"{series['name']}: {quantity} grows with {series['axis']} to the power of "
                f"{power['exponent']} ({low} to {high}); expected {law['expected']['form']}; "
                f"chosen: {law['chosen']}, {law['why']}"
            )
    return lines


def _failures(results: dict[str, Any]) -> list[str]:
    return [
        f"{series['name']} at {failed[series['axis']]}: {failed['reason']}"
        for series in results["series"]
        for failed in series.get("failed", [])
    ]


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.scaling``."""
    run_command(benchmark_scaling)


if __name__ == "__main__":
    main()
