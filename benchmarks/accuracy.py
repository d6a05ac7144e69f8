"""``python -m patchline.benchmarks.accuracy``: image AUROC of exported models on labelled classes.

Each class is fitted and exported as a user would, and the exported file is what is evaluated, in
ONNX Runtime. The threshold is the exported one, found from good training images alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from sklearn.metrics import roc_auc_score

from patchline.benchmarks.report import write_result
from patchline.export.config import FitSettings
from patchline.export.datasets import (
    GoodPictures,
    TestPicture,
    find_classes,
    good_pictures,
    labelled_pictures,
)
from patchline.export.exporter import export_model
from patchline.export.fit import fit
from patchline.export.progress import SilentSteps
from patchline.runtime.cli.command import print_warning, run_command
from patchline.runtime.engine import Engine, open_engine
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess


def benchmark_accuracy(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "wide_resnet50_2",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
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
        name: _evaluate_class(good_pictures(data, name), labelled, settings)
        for name in find_classes(data)
        if (labelled := labelled_pictures(data, name))
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
    path = write_result(f"accuracy-{backbone}-{settings.score_name}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _evaluate_class(
    pictures: GoodPictures, labelled: list[TestPicture], settings: FitSettings
) -> dict[str, Any]:
    fitted = fit(pictures, settings, SilentSteps(), lambda error: print_warning(str(error)))
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(fitted, settings, Path(folder), SilentSteps())
        with open_engine(path, provider="cpu") as engine:
            scores = np.array([_score(engine, picture.path) for picture in labelled])
    defective = np.array([picture.is_defective for picture in labelled])
    threshold = fitted.threshold.value
    return {
        "image_auroc": round(float(roc_auc_score(defective, scores)), 5),
        "threshold": round(threshold, 5),
        "false_alarms": int((scores[~defective] >= threshold).sum()),
        "good": int((~defective).sum()),
        "found": int((scores[defective] >= threshold).sum()),
        "defective": int(defective.sum()),
        "training_images": fitted.training_set.images,
        "bank_rows": len(fitted.memory_bank),
        "fit_peak_bytes_planned": fitted.memory.peak_bytes,
    }


def _score(engine: Engine, path: Path) -> float:
    frame = preprocess(read_image(path), engine.manifest.model_size)
    return float(engine.infer(frame[None]).image_score[0])


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.accuracy``."""
    run_command(benchmark_accuracy)


if __name__ == "__main__":
    main()
