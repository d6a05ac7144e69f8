"""``python -m patchline.benchmarks.distillation``: a trained method on labelled classes.

Each class is trained with and without noise and exported as a user would, and the exported file is
what is evaluated, in ONNX Runtime. The threshold is the exported one, from good pictures alone.

The result is written after each training. A further call with the same settings adds to it or
replaces what it trains again, so that each training may be a command of its own.
"""

from __future__ import annotations

import enum
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchline.benchmarks.distillation_results import described, earlier_classes
from patchline.benchmarks.outcome import outcome, warn_of
from patchline.benchmarks.report import commit_of, describe_machine, result_path, write_result
from patchline.export.config import FitSettings, make_settings, read_fields
from patchline.export.datasets import (
    GoodPictures,
    find_classes,
    good_pictures,
    labelled_pictures,
)
from patchline.export.distillation.checkpoint import has_checkpoint
from patchline.export.distillation.exporter import export_distilled
from patchline.export.distillation.fit import DistilledModel, fit_distillation
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.overrides import merged, parse_overrides
from patchline.export.tracking.base import NoTracker
from patchline.runtime.cli.command import print_warning, run_command, stderr_console
from patchline.runtime.clock import SYSTEM_CLOCK
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import DataError
from patchline.runtime.progress import ConsoleSteps


class Noise(str, enum.Enum):
    """Which trainings of a class."""

    BOTH = "both"
    WITH = "with"
    WITHOUT = "without"

    def kinds(self) -> dict[str, bool]:
        """Whether there is noise, by the training's name in the results."""
        kinds = {"plain": False, "noise": True}
        left_out = {"with": "plain", "without": "noise"}.get(self.value)
        return {name: is_on for name, is_on in kinds.items() if name != left_out}


def benchmark_distillation(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    config: Annotated[str, typer.Option(help="A preset, or a TOML file.")] = "rd_256_100e",
    backbone: Annotated[str, typer.Option(help="The teacher.")] = "wide_resnet50_2",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="As of export-model.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="This one only; several times for several."),
    ] = None,
    noise: Annotated[Noise, typer.Option(help="Which trainings of a class.")] = Noise.BOTH,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    checkpoints: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keeps checkpoints; goes on from those that are there."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result, which is added to.")
    ] = None,
) -> None:
    """Train, export and evaluate classes that have a test set, with and without noise."""
    given = {
        "backbone": backbone,
        "weights": weights,
        "image_size": (image_size, image_size),
        "device": device,
    }
    fields = merged(read_fields(Path(config), given), parse_overrides(overrides or []))
    asked = {
        kind: make_settings(merged(fields, {"train": {"noise": is_on}}))
        for kind, is_on in noise.kinds().items()
    }
    names = _classes(data, classes)
    settings = next(iter(asked.values()))
    results = described(settings, config)
    suite = f"distillation-{backbone}-{image_size}-{settings.train.epochs}"
    results["classes"] = earlier_classes(result_path(suite, out, describe_machine()), results)
    for name, kind in ((name, kind) for name in names for kind in asked):
        folder = None if checkpoints is None else checkpoints / name / kind
        found = _evaluate(good_pictures(data, name), data, asked[kind], folder)
        results["classes"].setdefault(name, {})[kind] = found
        path = write_result(suite, results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _classes(data: Path, asked: list[str] | None) -> list[str]:
    """Names of the classes to train.

    Raises:
        DataError: one that was asked for has no test set, or none has.
    """
    names = list(dict.fromkeys(asked or find_classes(data)))
    labelled = [name for name in names if labelled_pictures(data, name)]
    if lacking := [name for name in names if name not in labelled and (asked or not labelled)]:
        raise DataError(f"{', '.join(lacking)} in {data}: no labelled test pictures in NAME/test")
    if not labelled:
        raise DataError(f"{data} holds no class folder with labelled test pictures (NAME/test)")
    return labelled


def _evaluate(
    pictures: GoodPictures, data: Path, settings: FitSettings, checkpoints: Path | None
) -> dict[str, Any]:
    steps, started = ConsoleSteps(stderr_console()), SYSTEM_CLOCK.monotonic()
    is_resumed = has_checkpoint(checkpoints)
    fitted = fit_distillation(
        pictures,
        settings,
        steps,
        lambda error: print_warning(str(error)),
        tracker=NoTracker(),
        checkpoints=checkpoints,
        resume=is_resumed,
    )
    fit_s = round(SYSTEM_CLOCK.monotonic() - started, 1)
    time = {"fit": "not timed: resumed from a checkpoint"} if is_resumed else {"fit_s": fit_s}
    commit = commit_of(Path(__file__).resolve())
    made = {} if commit is None else {"commit": commit.digest, "is_dirty": commit.is_dirty}
    return {**_judged(fitted, data, settings, steps), **time, **made}


def _judged(
    fitted: DistilledModel, data: Path, settings: FitSettings, steps: ConsoleSteps
) -> dict[str, Any]:
    """What the exported file of a training gives."""
    with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
        path = export_distilled(fitted, settings, Path(folder), steps)
        file_bytes = path.stat().st_size
        with open_engine(path, provider="cpu") as engine:
            evaluation = evaluate_class(engine, data)
    warn_of(evaluation, fitted.pictures.class_name)
    return {
        **outcome(evaluation),
        "threshold": round(fitted.threshold.value, 5),
        "training_images": fitted.training_set.images - fitted.training_set.calibration_images,
        "calibration_images": fitted.training_set.calibration_images,
        "losses": [round(loss, 5) for loss in fitted.result.losses],
        "file_bytes": file_bytes,
    }


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.distillation``."""
    run_command(benchmark_distillation)


if __name__ == "__main__":
    main()
