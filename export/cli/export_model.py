"""``export-model``: fit, calibrate, export and verify one or several classes."""

from __future__ import annotations

import enum
import importlib.util
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import print_warning, run_command, stderr_console
from patchline.runtime.errors import MissingExtraError
from patchline.runtime.files import check_writable

if TYPE_CHECKING:
    from patchline.runtime.contract import Manifest
    from patchline.runtime.errors import ImageReadError


_EXTRA = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors")


class Method(str, enum.Enum):
    """What is fitted."""

    PATCHCORE_NOISING = "patchcore-noising"
    PATCHCORE = "patchcore"


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
        Path, typer.Option(help="Folder of class folders: NAME/train/good, or NAME with pictures.")
    ] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for NAME.onnx, .json, .safetensors.")] = Path(
        "models"
    ),
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
    """Fit a memory bank on good pictures and export one self-contained ONNX file per class."""
    silence_native_logs()  # before the first import of cv2
    _check_extra()

    from patchline.export.config import load_settings, parse_bytes, parse_size
    from patchline.export.datasets import select_classes

    settings = load_settings(
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
            "batch_size": batch_size,
            "memory_budget_bytes": parse_bytes(memory_budget)
            if memory_budget is not None
            else None,
            "device": device.value if device else None,
            "skip_unreadable": skip_unreadable,
        },
    )
    # Both before the first fit, so that a wrong name does not show after an hour.
    selected = select_classes(data, [*cls, *(more or [])])
    check_writable(out)
    for pictures in selected:
        _export_class(pictures, settings, out, as_json)


def _check_extra() -> None:
    """Raises: MissingExtraError: this is a device's install, without the training side."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"export-model needs {', '.join(missing)}. Install it with: "
            'pip install "patchline[export]"'
        )


def _export_class(pictures: Any, settings: Any, out: Path, as_json: bool) -> None:
    from patchline.export.exporter import export_model as export_fitted
    from patchline.export.fit import fit
    from patchline.export.progress import ConsoleSteps
    from patchline.runtime.contract import load_manifest, manifest_path

    console = stderr_console()
    console.print(f"{pictures.class_name}: {len(pictures.paths)} good pictures", markup=False)
    steps, started = ConsoleSteps(console), time.monotonic()
    fitted = fit(pictures, settings, steps, _warn_of_skipped)
    path = export_fitted(fitted, settings, out, steps)
    _report(path, load_manifest(manifest_path(path)), time.monotonic() - started, as_json)


def _report(path: Path, manifest: Manifest, seconds: float, as_json: bool) -> None:
    if as_json:
        line = {"model": str(path), "seconds": round(seconds, 1)}
        typer.echo(json.dumps(line | json.loads(manifest.to_json())))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(str(path)), show_header=False, title_justify="left")
    for name, value in _rows(manifest, path, seconds):
        table.add_row(name, Text(value))
    Console(highlight=False).print(table)


def _rows(manifest: Manifest, path: Path, seconds: float) -> list[tuple[str, str]]:
    bank, threshold, parity = manifest.memory_bank, manifest.threshold, manifest.parity
    training, size = manifest.training_set, manifest.model_size
    skipped = training.skipped_unreadable
    rows = [
        (
            "pictures",
            f"{training.images}" + (f" ({skipped} unreadable left out)" if skipped else ""),
        ),
        ("backbone", f"{manifest.backbone.name}, weights {manifest.backbone.weights_source}"),
        ("frames", f"{size.height} x {size.width} px (height x width)"),
        ("memory bank", f"{bank.rows} x {bank.dimension}, k = {bank.neighbors}"),
        ("score", f"{manifest.score} ({manifest.method})"),
        ("threshold", f"{threshold.value:.4g}: {threshold.rule}"),
        ("file", f"{path.stat().st_size / (1 << 20):.1f} MiB"),
        ("time", f"{seconds:.0f} s"),
    ]
    if parity is not None:
        rows.insert(
            6,
            (
                "ONNX Runtime against PyTorch",
                f"image score within {parity.image_score_max_relative_error:.1e}, "
                f"map within {parity.anomaly_map_max_relative_error:.1e} ({parity.frames} frames)",
            ),
        )
    return rows


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")


def main() -> None:
    """Entry point of ``export-model``."""
    run_command(export_model)


if __name__ == "__main__":
    main()
