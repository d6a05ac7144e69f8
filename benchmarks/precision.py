"""``python -m patchline.benchmarks.precision``: what FP16 and INT8 cost and gain beside FP32.

The exported files are what is evaluated and timed, in ONNX Runtime on the CPU. Plans are built by
TensorRT for RTX, which needs no GPU for that, for their sizes alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import typer
from rich.console import Console

from patchline.benchmarks.precision_measures import add_times, measure, threshold_values
from patchline.benchmarks.precision_models import direct_threshold, export_all
from patchline.benchmarks.report import write_result
from patchline.calibration.ranges import IMAGES
from patchline.export.config import make_settings, parse_names, read_fields
from patchline.export.datasets import find_classes, labelled_pictures, select_classes
from patchline.export.precision.compare import evenly_spread
from patchline.runtime.cli.command import print_warning, run_command, stderr_console
from patchline.runtime.engine.compat import TENSORRT_RTX, Flavour, load_flavour
from patchline.runtime.engine.plans.record import BuildOptions
from patchline.runtime.errors import MissingExtraError
from patchline.runtime.progress import ConsoleSteps


def benchmark_precision(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    classes: Annotated[
        str, typer.Option(help="Classes, with commas.  [default: all with a test set]")
    ] = "",
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    coreset_ratio: Annotated[float, typer.Option(help="Coreset ratio.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of coreset and folds.")] = 0,
    calibration_images: Annotated[int, typer.Option(help="Pictures for INT8's ranges.")] = IMAGES,
    calibration_method: Annotated[
        str, typer.Option(help="percentile, minmax or entropy.")
    ] = "percentile",
    float_layers: Annotated[str, typer.Option(help="Left out of INT8, with commas.")] = "",
    with_direct_threshold: Annotated[
        bool, typer.Option("--direct-threshold", help="Cross-fit the FP16 backbone as well.")
    ] = False,
    plans: Annotated[
        bool, typer.Option("--plans/--no-plans", help="Build plans, for their sizes.")
    ] = True,
    images: Annotated[
        int | None, typer.Option(min=2, help="At most so many test pictures of a class.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Timed inferences of each file.")] = 50,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Fit, convert, evaluate and time every class in all three precisions."""
    shown: dict[str, Any] = {
        "backbone": backbone,
        "coreset_ratio": coreset_ratio,
        "seed": seed,
        "calibration_images": calibration_images,
        "calibration_method": calibration_method,
        "float_layers": parse_names(float_layers),
    }
    size = (image_size, image_size)
    fields = read_fields(None, {**shown, "image_size": size, "weights": weights})
    flavour = _flavour() if plans else None
    score = make_settings(fields).score_name
    names = parse_names(classes) or _with_test_set(data)
    steps, measured = ConsoleSteps(stderr_console()), {}
    for pictures in select_classes(data, list(names)):
        name = pictures.class_name
        stderr_console().print(f"{name}: {len(pictures.paths)} good pictures", markup=False)
        with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
            tested = bounded_test_set(data, name, images, Path(folder) / "data")
            models = export_all(pictures, fields, tested, Path(folder), steps)
            found = measure(models, tested, flavour, steps)
            add_times(found, models, rounds, threads)
            if with_direct_threshold:
                direct = threshold_values(direct_threshold(models, steps))
                found["fp16"]["direct_threshold"] = direct
        training = models.fitted.training_set.images
        measured[name] = {"training_images": training, "precisions": found}
    results = {
        **shown,
        "image_size_px": image_size,
        "weights": Path(weights).name if weights else "hub",
        "score": score,
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "threads": threads or "one per core",
        "plans": None if flavour is None else f"{flavour}, batch {BuildOptions().batch}",
        "classes": measured,
    }
    path = write_result(f"precision-{backbone}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def bounded_test_set(data: Path, name: str, images: int | None, folder: Path) -> Path:
    """The test set of a class, or a part of it that is spread evenly over good and defective ones.

    Args:
        data: folder of class folders in MVTec layout.
        name: the class.
        images: at most so many test pictures; ``None`` for all.
        folder: for links to these pictures and their masks; it need not exist.

    Returns:
        ``data`` itself, or ``folder``.
    """
    if images is None:
        return data
    (folder / name).mkdir(parents=True)
    pictures = {picture.path: picture for picture in labelled_pictures(data, name)}
    for path in evenly_spread(tuple(pictures), images) if pictures else ():
        for file in filter(None, (path, pictures[path].mask)):
            link = folder / file.relative_to(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return folder


def _flavour() -> Flavour | None:
    try:
        return load_flavour(TENSORRT_RTX)
    except MissingExtraError as error:
        print_warning(f"no plans are built: {error}")
        return None


def _with_test_set(data: Path) -> tuple[str, ...]:
    return tuple(name for name in find_classes(data) if labelled_pictures(data, name))


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.precision``."""
    run_command(benchmark_precision)


if __name__ == "__main__":
    main()
