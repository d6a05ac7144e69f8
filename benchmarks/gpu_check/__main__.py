"""``python -m patchline.benchmarks.gpu_check pack|run``: carry models to a GPU, check them there.

``pack`` needs the training side and no GPU, ``run`` a GPU and no training side: see README.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from patchline.benchmarks.gpu_check.bench import Sizes
from patchline.benchmarks.gpu_check.run import check_gpu
from patchline.runtime.cli.command import EXIT_ERROR, print_error, run_command, stderr_console


def pack(
    out: Annotated[Path, typer.Option(help="Folder that travels to the GPU; new or empty.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="Weights file, or random.")] = "random",
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    bank_rows: Annotated[int, typer.Option(min=9, help="Rows of the memory bank.")] = 2048,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
) -> None:
    """Export models and store what ONNX Runtime computes with them."""
    from patchline.benchmarks.gpu_check.pack import PackSettings, pack_models

    settings = PackSettings(backbone, weights, image_size, bank_rows, precision)
    typer.echo(json.dumps(pack_models(out, settings), indent=2))


def run(
    folder: Annotated[Path, typer.Argument(help="The folder that pack has written.")],
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = Path("gpu-check.json"),
    device: Annotated[int, typer.Option(min=0, help="Index of the GPU.")] = 0,
    flavour: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx; the one installed.")
    ] = None,
    inferences: Annotated[int, typer.Option(min=100, help="Of the endurance run.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=2, help="Timed calls of each kind.")] = 200,
) -> None:
    """Check the carried models on this machine's GPU; exit 1 where something is wrong."""
    sizes = Sizes(inferences=inferences, rounds=rounds)
    console = stderr_console()
    failures = check_gpu(
        folder, out, device=device, flavour=flavour, sizes=sizes, say=console.print
    )
    typer.echo(str(out))
    for failure in failures:
        print_error(failure)
    if failures:
        raise typer.Exit(EXIT_ERROR)


COMMANDS: dict[str, Callable[..., None]] = {"pack": pack, "run": run}


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.gpu_check``."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        typer.echo("usage: python -m patchline.benchmarks.gpu_check pack|run [OPTIONS]", err=True)
        raise SystemExit(2)
    sys.argv = [f"gpu_check {name}", *sys.argv[2:]]
    run_command(COMMANDS[name])


if __name__ == "__main__":
    main()
