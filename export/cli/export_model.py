"""``export-model``: fit, calibrate, export and verify one or several classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from patchline.export.cli.call import Call
from patchline.export.cli.export_options import (
    CalibrationMethod,
    CoresetName,
    Device,
    Method,
    Place,
    PrecisionName,
    SearchName,
    fields_of,
    is_fleet,
    ray_options,
)
from patchline.export.cli.export_ways import export_many, export_one, extend_one
from patchline.export.cli.serving_options import (
    ServeName,
    check_only_serving,
    serve_existing,
    serving_of,
)
from patchline.export.cli.tracking_options import TrackerName, track_settings
from patchline.export.making.conversion_options import int8_options
from patchline.export.making.output import Output
from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import print_warning, run_command
from patchline.runtime.errors import MissingExtraError

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
        Path | None,
        typer.Option(
            metavar="FILE|PRESET",
            help="Settings by name: a TOML file, or patchcore_noising_256, patchcore_256, "
            "rd_256_100e, rd_256_300e or rd_noising_256_100e.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="One setting, such as train.lr=0.002; wins over --config. May be repeated.",
        ),
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
    coreset: Annotated[
        CoresetName | None,
        typer.Option(
            help="How the bank is chosen: exact, or sharded, an approximation with a part of the "
            "patches in memory at a time.  [default: exact]"
        ),
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
            help="Share of the pictures kept out of the fit for the threshold, such as 0.2.  "
            "[default: five folds]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Pictures embedded at once; of a training it is --set train.batch_size=N.  "
            "[default: 8]"
        ),
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
    epochs: Annotated[
        int | None,
        typer.Option(help="Of a training (--method reverse-distillation).  [default: 100]"),
    ] = None,
    noise: Annotated[
        bool | None,
        typer.Option("--noise", help="Train with adaptive noise on the teacher's features."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training from its last checkpoint.")
    ] = False,
    track: Annotated[
        TrackerName | None,
        typer.Option(help="Who is told of the fit: figures, pictures, model.  [default: none]"),
    ] = None,
    track_project: Annotated[
        str | None, typer.Option(metavar="NAME", help="Project there.  [default: patchline]")
    ] = None,
    track_entity: Annotated[
        str | None, typer.Option(metavar="NAME", help="User or team, with W&B.")
    ] = None,
    track_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run.  [default: of the class]")
    ] = None,
    track_tags: Annotated[
        str | None, typer.Option(metavar="TAG,...", help="Tags of the run.")
    ] = None,
    track_notes: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Notes of the run.")
    ] = None,
    track_log_every: Annotated[
        int | None,
        typer.Option(metavar="STEPS", help="From one figure to the next.  [default: 10]"),
    ] = None,
    track_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For files of the runs.  [default: runs]"),
    ] = None,
    track_pictures: Annotated[
        bool | None,
        typer.Option("--track-pictures/--no-track-pictures", help="Heat maps too.  [default: yes]"),
    ] = None,
    track_model: Annotated[
        bool | None,
        typer.Option("--track-model/--no-track-model", help="The model too.  [default: yes]"),
    ] = None,
    serve: Annotated[
        ServeName | None,
        typer.Option(help="Lay the models out for a server, after the export.  [default: none]"),
    ] = None,
    serve_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For the server: Triton's model repository, or DeepStream's files.  "
            "[default: models/triton or models/deepstream]",
        ),
    ] = None,
    only_serve: Annotated[
        bool, typer.Option("--only-serve", help="Models of --out as they are: nothing is fitted.")
    ] = False,
    serve_plan: Annotated[
        bool, typer.Option("--serve-plan", help="NAME.trt of build-engine instead of NAME.onnx.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --cls all: also those that are up to date.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|ADDRESS",
            help="Make the classes on a Ray cluster: one that runs, one of this call's own, or "
            "HOST:PORT.  [default: one after another, here]",
        ),
    ] = None,
    ray_cpus: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads of a class there.  [default: 1]")
    ] = None,
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="GPUs of a class there, or a share.  [default: 1 with --device cuda]"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON, a line per class.")
    ] = False,
) -> None:
    """Fit a model on good pictures and export one self-contained ONNX file per class.

    With --bank external it is one graph for all classes on a backbone, and a bank file per class.
    """
    silence_native_logs()  # before the first import of cv2
    _check_extra()
    fields = fields_of(
        config, overrides or (), method=method, score=score, backbone=backbone, weights=weights,
        image_size=image_size, coreset_ratio=coreset_ratio, coreset=coreset,
        neighbors=neighbors, seed=seed, false_alarm_rate=false_alarm_rate,
        calibration_split=calibration_split,
        batch_size=batch_size, memory_budget=memory_budget, device=device, bank=bank, search=search,
        skip_unreadable=skip_unreadable, precision=precision,
        calibration_images=calibration_images, calibration_method=calibration_method,
        float_layers=float_layers, epochs=epochs, noise=noise,
    )  # fmt: skip
    options = int8_options(
        fields.get("precision", "fp32"), is_forced=force, float_layers=float_layers,
        calibration_images=calibration_images, calibration_method=calibration_method,
        sensitivity=sensitivity,
    )  # fmt: skip
    tracking = track_settings(
        track, project=track_project, entity=track_entity, name=track_name, tags=track_tags,
        notes=track_notes, log_every=track_log_every, folder=track_folder,
        upload_pictures=track_pictures, upload_model=track_model,
    )  # fmt: skip
    names = [*cls, *(more or [])]
    serving = serving_of(serve, serve_dir, is_only=only_serve, is_plan=serve_plan)
    if serving is not None and serving.is_only:
        check_only_serving(
            fields, data=data, extend=extend, state=state, resume=resume, again=again, ray=ray,
            ray_cpus=ray_cpus is not None, ray_gpus=ray_gpus is not None,
        )  # fmt: skip
        serve_existing(serving, names, out, as_json=as_json)
        return
    output = Output(out, as_json, force, sensitivity, options, resume, tracking, state)
    call = Call(
        names, data or Path("data"), fields, config, output, again,
        ray_options(ray, ray_cpus, ray_gpus), serving,
    )  # fmt: skip
    if extend is not None:
        if data is not None:
            print_warning(f"--data {data} is not read: --extend takes its pictures from {extend}")
        extend_one(call, extend)
    elif is_fleet(names, call.ray):
        export_many(call)
    else:
        export_one(call)


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
