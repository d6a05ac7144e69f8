"""``export-model``: fit, calibrate, export and verify one or several classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from patchline.export.cli.conversion_options import int8_options
from patchline.export.cli.export_options import (
    CalibrationMethod,
    Device,
    Method,
    Output,
    Place,
    PrecisionName,
    SearchName,
    fields_of,
)
from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import print_warning, run_command
from patchline.runtime.errors import MissingExtraError
from patchline.runtime.files import check_writable

_EXTRA = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors", "scipy", "sklearn")


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
    search: Annotated[
        SearchName | None,
        typer.Option(
            help="Of the bank: exact, or pruned, which misses a neighbor now and then and is "
            "checked; auto prunes large banks.  [default: auto]"
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
    fields = fields_of(
        config, method=method, score=score, backbone=backbone, weights=weights,
        image_size=image_size, coreset_ratio=coreset_ratio, neighbors=neighbors, seed=seed,
        false_alarm_rate=false_alarm_rate, calibration_split=calibration_split,
        batch_size=batch_size, memory_budget=memory_budget, device=device, bank=bank, search=search,
        skip_unreadable=skip_unreadable, precision=precision,
        calibration_images=calibration_images, calibration_method=calibration_method,
        float_layers=float_layers,
    )  # fmt: skip
    options = int8_options(
        fields.get("precision", "fp32"), is_forced=force, float_layers=float_layers,
        calibration_images=calibration_images, calibration_method=calibration_method,
        sensitivity=sensitivity,
    )  # fmt: skip
    names, output = [*cls, *(more or [])], Output(out, as_json, force, sensitivity, options)
    if extend is not None:
        from patchline.export.cli.extend_class import check_extend, extend_class

        if data is not None:
            print_warning(f"--data {data} is not read: --extend takes its pictures from {extend}")
        check_extend(names, extend, state)
        extend_class(names[0], extend, fields, config, output)
        return
    from patchline.export.datasets import select_classes

    # Both before the first fit, so that a wrong name does not show after an hour.
    selected = select_classes(data or Path("data"), names)
    check_writable(out)
    from patchline.export.cli.export_classes import export_classes, plan_jobs

    export_classes(plan_jobs(selected, fields, config, state, out), output)


def _check_extra() -> None:
    """Raises: MissingExtraError: this is a device's install, without the training side."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"export-model needs {', '.join(missing)}. Install it with: "
            'pip install "patchline[export]"'
        )


def main() -> None:
    """Entry point of ``export-model``."""
    run_command(export_model)


if __name__ == "__main__":
    main()
