"""``python -m patchline.benchmarks.accuracy``: metrics of exported models on labelled classes.

Each class is fitted and exported as a user would, and the exported file is what is evaluated, in
ONNX Runtime. The threshold is the exported one, found from good training images alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchline.benchmarks.outcome import outcome, warn_of
from patchline.benchmarks.report import write_result
from patchline.export.config import FitSettings
from patchline.export.datasets import (
    GoodPictures,
    find_classes,
    good_pictures,
    labelled_pictures,
)
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.exporter import export_model
from patchline.export.fit import fit
from patchline.runtime.cli.command import print_warning, run_command
from patchline.runtime.engine import open_engine
from patchline.runtime.progress import SilentSteps

_USUAL_SIDE_PX = 256
"""Results at another size say it in their name."""


def benchmark_accuracy(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "wide_resnet50_2",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = (
        _USUAL_SIDE_PX
    ),
    score: Annotated[str | None, typer.Option(help="Score function.")] = None,
    coreset_ratio: Annotated[float, typer.Option(help="Coreset ratio.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of coreset and folds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Fit, export and evaluate every class that has a test set."""
    settings = FitSettings(
        backbone=backbone,
        weights=weights,
        image_size=(image_size, image_size),
        score=score,
        coreset_ratio=coreset_ratio,
        seed=seed,
    )
    classes = {
        name: _evaluate_class(good_pictures(data, name), data, settings)
        for name in find_classes(data)
        if labelled_pictures(data, name)
    }
    results = {
        "backbone": backbone,
        "weights": Path(weights).name if weights else "hub",
        "image_size_px": image_size,
        "score": settings.score_name,
        "coreset_ratio": coreset_ratio,
        "seed": seed,
        "classes": classes,
    }
    size = "" if image_size == _USUAL_SIDE_PX else f"-{image_size}"
    path = write_result(f"accuracy-{backbone}-{settings.score_name}{size}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _evaluate_class(pictures: GoodPictures, data: Path, settings: FitSettings) -> dict[str, Any]:
    fitted = fit(pictures, settings, SilentSteps(), lambda error: print_warning(str(error)))
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(fitted, settings, Path(folder), SilentSteps())
        with open_engine(path, provider="cpu") as engine:
            evaluation = evaluate_class(engine, data)
    warn_of(evaluation, pictures.class_name)
    return {
        **outcome(evaluation),
        "threshold": round(fitted.threshold.value, 5),
        "training_images": fitted.training_set.images,
        "bank_rows": len(fitted.memory_bank),
        "fit_peak_bytes_planned": fitted.memory.peak_bytes,
    }


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.accuracy``."""
    run_command(benchmark_accuracy)


if __name__ == "__main__":
    main()
