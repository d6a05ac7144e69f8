"""``export-model``: fit, calibrate, export and verify one or several classes."""

from __future__ import annotations

import enum
import functools
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import print_warning, run_command, stderr_console
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.files import check_writable

if TYPE_CHECKING:
    from patchline.export.config import FitSettings
    from patchline.export.datasets import GoodPictures
    from patchline.export.fit import FittedModel
    from patchline.export.precision.again import Job
    from patchline.export.precision.convert import Converted
    from patchline.export.state import TrainingState
    from patchline.runtime.errors import ImageReadError
    from patchline.runtime.progress import Steps

_EXTRA = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors", "scipy", "sklearn")


class Method(str, enum.Enum):
    """What is fitted."""

    PATCHCORE_NOISING = "patchcore-noising"
    PATCHCORE = "patchcore"


class Place(str, enum.Enum):
    """Where the memory bank is."""

    EMBEDDED = "embedded"
    EXTERNAL = "external"


class PrecisionName(str, enum.Enum):
    """Of the backbone; the bank follows where the gate allows it."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class CalibrationMethod(str, enum.Enum):
    """How INT8 ranges are found."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Device(str, enum.Enum):
    """Where PyTorch computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def export_model(
    cls: Annotated[
        list[str],
        typer.Option("--cls", metavar="NAME...", help="Classes to export; all for every one."),
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of class folders: NAME/train/good, or NAME with pictures.  [default: data]"
        ),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Add the good pictures of DIR to the model exported earlier, without its own.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME.onnx, .json, .safetensors.")] = Path(
        "models"
    ),
    bank: Annotated[
        Place | None,
        typer.Option(
            help="In the graph, or in NAME.bank beside one graph of all classes.  "
            "[default: embedded]"
        ),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            help="Of the backbone. From NAME.safetensors where it fits: no fit.  [default: fp32]"
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of NAME.safetensors to export again from, if not --out."
        ),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(help="Good pictures that INT8 ranges are found on.  [default: 100]"),
    ] = None,
    calibration_method: Annotated[
        CalibrationMethod | None,
        typer.Option(help="How INT8 ranges are found.  [default: percentile]"),
    ] = None,
    float_layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Layers that INT8 leaves in float: first, last, names, auto."
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg", help="Table and chart of what INT8 costs in each layer alone."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a converted model that the gate refuses.")
    ] = False,
    method: Annotated[
        Method | None, typer.Option(help="What is fitted.  [default: patchcore-noising]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these settings by name.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm backbone.  [default: wide_resnet50_2]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights: .pth or .safetensors file, or random.  [default: the hub's]"),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="256, or 256x320 (height x width).  [default: 256]")
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="Score function.  [default: the method's own]")
    ] = None,
    coreset_ratio: Annotated[
        float | None, typer.Option(help="Share of patches kept, in (0, 1].  [default: 0.01]")
    ] = None,
    neighbors: Annotated[
        int | None, typer.Option(help="Neighbours of the influence, k.  [default: 9]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.  [default: 0]")
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Share of good frames at or above the threshold.  [default: 0.05]"),
    ] = None,
    calibration_split: Annotated[
        float | None,
        typer.Option(
            help="Share of the pictures kept out of the bank for the threshold, such as 0.2.  "
            "[default: five folds]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures embedded at once.  [default: 8]")
    ] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help="Memory for the fit's data; more goes to disk.  [default: 4G]"),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="Where PyTorch computes.  [default: auto]")
    ] = None,
    skip_unreadable: Annotated[
        bool | None,
        typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON, a line per class.")
    ] = False,
) -> None:
    """Fit a memory bank on good pictures and export one self-contained ONNX file per class.

    With --bank external it is one graph for all classes on a backbone, and a bank file per class.
    """
    silence_native_logs()  # before the first import of cv2
    _check_extra()

    from patchline.export.config import parse_names, parse_size, read_fields
    from patchline.export.datasets import select_classes
    from patchline.runtime.byte_size import parse_bytes

    fields = read_fields(
        config,
        {
            "method": method.value if method else None,
            "score": score,
            "backbone": backbone,
            "weights": weights,
            "image_size": parse_size(image_size) if image_size is not None else None,
            "coreset_ratio": coreset_ratio,
            "neighbors": neighbors,
            "seed": seed,
            "false_alarm_rate": false_alarm_rate,
            "calibration_split": calibration_split,
            "batch_size": batch_size,
            "memory_budget_bytes": parse_bytes(memory_budget)
            if memory_budget is not None
            else None,
            "device": device.value if device else None,
            "bank": bank.value if bank else None,
            "skip_unreadable": skip_unreadable,
            "precision": precision.value if precision else None,
            "calibration_images": calibration_images,
            "calibration_method": calibration_method.value if calibration_method else None,
            "float_layers": parse_names(float_layers) if float_layers is not None else None,
        },
    )
    names, output = [*cls, *(more or [])], _Output(out, as_json, force, sensitivity)
    if sensitivity is not None and fields.get("precision") != "int8":
        raise ConfigurationError("--sensitivity tries layers in INT8: add --precision int8")
    if extend is not None:
        if data is not None:
            print_warning(f"--data {data} is not read: --extend takes its pictures from {extend}")
        if state is not None:
            raise ConfigurationError(
                "--state exports a model again as it is, and --extend makes another. Give --out "
                "the folder of the model that is extended"
            )
        _extend_class(names, extend, fields, config, output)
        return
    # Both before the first fit, so that a wrong name does not show after an hour.
    selected = select_classes(data or Path("data"), names)
    check_writable(out)
    jobs = _plan_jobs(selected, fields, config, state, out)
    for job in jobs:
        _check_target(job.pictures.class_name, job.settings, out)
    for job in jobs:
        _export_class(job.pictures, job.settings, output, job)


@dataclass(frozen=True)
class _Output:
    """Where results go, and whether what the gate refuses goes there too."""

    folder: Path
    as_json: bool
    is_forced: bool
    sensitivity: Path | None


def _check_extra() -> None:
    """Raises: MissingExtraError: this is a device's install, without the training side."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"export-model needs {', '.join(missing)}. Install it with: "
            'pip install "patchline[export]"'
        )


def _extend_class(
    names: list[str],
    folder: Path,
    fields: dict[str, Any],
    config: Path | None,
    output: _Output,
) -> None:
    from patchline.export.extend import (
        deployed_manifest,
        is_recalibrated,
        load_base,
        pictures_to_add,
        settings_of,
    )

    if len(set(names)) != 1:
        raise ConfigurationError(
            f"--extend adds the pictures of {folder} to one class, and --cls names "
            f"{', '.join(names)}. Extend them one by one"
        )
    base = load_base(output.folder, names[0])
    deployed = deployed_manifest(output.folder, base) or base.manifest
    current = deployed.threshold
    settings = settings_of(base, fields, false_alarm_rate=current.false_alarm_rate, config=config)
    pictures, known = pictures_to_add(folder, base)
    if known:
        print_warning(f"{known} pictures of {folder} are in the model already and are left out")
    check_writable(output.folder)
    _check_target(pictures.class_name, settings, output.folder)
    _export_class(pictures, settings, output, base=base)
    if deployed.precision != "fp32" and "precision" not in fields:
        print_warning(
            f"the model was {deployed.precision} and is replaced by one in float32. Convert it "
            f"again: --precision {deployed.precision}, with --data and without --extend"
        )
    # That of a converted model lies on a scale of its own.
    if is_recalibrated(deployed, base.manifest):
        print_warning(
            f"the threshold {current.value:.4g} ({current.rule}) was of the smaller model and is "
            "replaced. Calibrate again: calibrate-threshold --images with pictures of the line"
        )


def _plan_jobs(
    selected: list[GoodPictures],
    fields: dict[str, Any],
    config: Path | None,
    state: Path | None,
    out: Path,
) -> list[Job]:
    """How each class comes about: fitted, or made again from its state where that is asked for."""
    from patchline.export.config import make_settings
    from patchline.export.precision.again import Job, plan_job

    if state is None and "precision" not in fields:
        settings = make_settings(fields, config)
        return [Job(pictures, settings) for pictures in selected]
    return [
        plan_job(pictures, fields, config, state or out, must_reuse=state is not None)
        for pictures in selected
    ]


def _check_target(name: str, settings: FitSettings, out: Path) -> None:
    from patchline.export.exporter import check_target

    check_target(out, name, settings)


def _export_class(
    pictures: GoodPictures,
    settings: FitSettings,
    output: _Output,
    job: Job | None = None,
    base: TrainingState | None = None,
) -> None:
    from patchline.calibration.threshold import caveat
    from patchline.export.cli.export_report import print_export
    from patchline.export.exporter import export_model as export_fitted
    from patchline.export.exporter import leftovers
    from patchline.export.external_files import graph_path
    from patchline.export.fit import fit
    from patchline.export.precision.again import fitted_again, lost_calibration
    from patchline.runtime.progress import ConsoleSteps

    console = stderr_console()
    console.print(f"{pictures.class_name}: {len(pictures.paths)} good pictures", markup=False)
    if job is not None and job.note:
        console.print(f"{pictures.class_name}: {job.note}", markup=False, soft_wrap=True)
    steps, started = ConsoleSteps(console), time.monotonic()
    state = job.state if job is not None else None
    if job is not None and state is not None:
        fitted = fitted_again(job, _warn_of_skipped)
    else:
        fitted = fit(pictures, settings, steps, _warn_of_skipped, base)
    converted = _convert(fitted, settings, output, steps)
    path = export_fitted(fitted, settings, output.folder, steps, converted, state)
    copies = len(fitted.picture_digests) - len(set(fitted.picture_digests))
    if copies:
        print_warning(
            f"{copies} of {len(fitted.picture_digests)} pictures are copies of others. A copy is "
            "judged by a bank that has seen it, which lowers the threshold: remove them"
        )
    manifest = converted.manifest if converted else None
    threshold = manifest.threshold if manifest else fitted.threshold
    for warning in (
        caveat(threshold, len(fitted.normal.scores)),
        lost_calibration(job.deployed if job is not None else None),
    ):
        if warning is not None:
            print_warning(warning)
    old = leftovers(path)
    if old:
        print_warning(
            f"{', '.join(map(str, old))}: of an earlier export of {pictures.class_name}, and left "
            "as it was. Remove it if nothing uses it any more"
        )
    bank = manifest.memory_bank.precision if manifest else None
    is_external = settings.bank == "external"
    graph = graph_path(output.folder, settings, bank) if is_external else None
    print_export(path, graph, time.monotonic() - started, output.as_json, converted)


def _convert(
    fitted: FittedModel, settings: FitSettings, output: _Output, steps: Steps
) -> Converted | None:
    """The model at the precision asked for, where that is another than it was fitted in."""
    if settings.precision == "fp32":
        return None
    from patchline.export.cli.conversion_report import conversion_warnings, show_sensitivity
    from patchline.export.describe import describe
    from patchline.export.external_files import given_graph
    from patchline.export.precision.convert import convert
    from patchline.export.precision.evidence import data_of

    chart = output.sensitivity
    float32, is_external = describe(fitted, settings, None), settings.bank == "external"
    converted = convert(
        fitted,
        float32,
        settings,
        steps,
        data=data_of(fitted.pictures),
        given=given_graph(output.folder, settings, float32) if is_external else None,
        is_forced=output.is_forced,
        on_sensitivity=None if chart is None else functools.partial(show_sensitivity, chart),
    )
    for warning in conversion_warnings(converted):
        print_warning(warning)
    return converted


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")


def main() -> None:
    """Entry point of ``export-model``."""
    run_command(export_model)


if __name__ == "__main__":
    main()
