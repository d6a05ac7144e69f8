"""``python -m patchline.export.demo``: the whole line on drawn pictures, in a minute.

It draws a small data set, fits and exports a model, lets the camera program judge pictures the
model never saw, and shows what it found. Every step is the command a user would type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from patchline.export.demo.backbone import (
    BACKBONE,
    BackboneWeights,
    choose_weights,
)
from patchline.export.demo.commands import RunCommand, run_command_line
from patchline.export.demo.pictures import write_demo_data
from patchline.export.demo.report import DemoResult, evaluate, result_table, tested_files
from patchline.runtime.cli.command import run_command

CLASS_NAME = "gasket"
TRAINED_ON = 60
CORESET_RATIO = "0.05"
"""Sixty pictures are few: one patch in a hundred would leave gaps between the normal ones."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures, model and results.")] = Path(
        "demo"
    ),
    weights: Annotated[
        str | None,
        typer.Option(help="Backbone weights: a file, or random; by default the model hub's."),
    ] = None,
) -> None:
    """Draw pictures, fit, export, run the camera on unseen pictures, show what it found."""
    run_demo(out, choose_weights(weights), run_command_line, Console(highlight=False))


def run_demo(out: Path, weights: BackboneWeights, run: RunCommand, console: Console) -> DemoResult:
    """The demo itself.

    Args:
        out: folder for pictures, model and annotated pictures.
        weights: what the backbone runs on.
        run: runs a command line.
        console: where the demo speaks.

    Raises:
        PatchlineError: a command failed; nothing after it was run.
    """
    if weights.warning is not None:
        console.print(weights.warning, style="bold yellow", soft_wrap=True)
    console.print(f"Drawing pictures of good and defective {CLASS_NAME}s …")
    folder = write_demo_data(out / "data", class_name=CLASS_NAME, good=TRAINED_ON)
    run(export_words(out, weights), capture=False)
    lines = run(camera_words(out), capture=True)
    result = evaluate(lines, tested_files(folder))
    console.print()
    console.print(result_table(result, trained_on=TRAINED_ON, backbone=weights.description))
    _show_what_is_next(out, console)
    return result


def export_words(out: Path, weights: BackboneWeights) -> list[str]:
    """The command line that fits and exports the demo's model."""
    words = ["export-model", "--cls", CLASS_NAME, "--data", str(out / "data")]
    words += ["--backbone", BACKBONE, "--coreset-ratio", CORESET_RATIO]
    if weights.option is not None:
        words += ["--weights", weights.option]
    return [*words, "--out", str(out / "models")]


def camera_words(out: Path) -> list[str]:
    """The command line that judges the demo's test pictures."""
    source = out / "data" / CLASS_NAME / "test"
    words = ["run-camera", "--engine", str(_model(out)), "--source", str(source)]
    return [*words, "--headless", "--output", str(out / "annotated")]


def _model(out: Path) -> Path:
    return out / "models" / f"{CLASS_NAME}.onnx"


def _show_what_is_next(out: Path, console: Console) -> None:
    lines = (
        f"Annotated pictures: {out / 'annotated'}",
        "",
        "Your own pictures:  export-model --cls NAME --data DIR   (DIR/NAME/train/good/*.png)",
        "Your own camera:    run-camera --engine models/NAME.onnx --source 0",
        f"No camera at hand:  run-camera --engine {_model(out)} "
        '--source "test://?width=480&height=480"',
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``python -m patchline.export.demo``."""
    run_command(demo)


if __name__ == "__main__":
    main()
