"""``build-engine``: a TensorRT plan of an exported model, for the GPU of this machine."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchline.runtime.cli.command import (
    FlavourName,
    print_warning,
    run_command,
    stderr_console,
)
from patchline.runtime.cli.plan_report import print_plan

if TYPE_CHECKING:
    from patchline.runtime.engine.compat import Flavour
    from patchline.runtime.engine.cuda.gpu import Gpu
    from patchline.runtime.engine.plans.record import BuildOptions

_LEAST_WORKSPACE_BYTES = 1 << 20


def build_engine(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Exported model (.onnx, with its .json).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The plan, or its folder; MODEL.trt by default.")
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Frames in one call: smallest:usual:largest.")
    ] = "1:1:8",
    bank_rows: Annotated[
        str | None,
        typer.Option(
            help="Rows of an external memory bank, likewise, multiples of 32; 288:2048:8192 by "
            "default where k is 9."
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(help="GPU memory for scratch, such as 2G; all there is by default."),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Round products to TF32: faster, less exact.")
    ] = False,
    flavour: Annotated[
        FlavourName | None, typer.Option(help="Which TensorRT; what is installed by default.")
    ] = None,
    device: Annotated[int, typer.Option(min=0, help="Index of the GPU.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Build a plan that fits, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a plan for this machine's GPU and TensorRT; nothing is done where it is up to date."""
    from patchline.runtime.engine.compat import load_flavour

    logging.basicConfig(format="warning: %(message)s")
    plan, options = _plan_path(model, out), _options(batch, bank_rows, workspace, tf32)
    found = load_flavour(flavour.value if flavour else None)
    gpu = _open_gpu(found, device)
    try:
        _build(model, plan, found, gpu, options, force=force, as_json=as_json)
    finally:
        if gpu is not None:
            gpu.close()


def _build(
    model: Path,
    plan: Path,
    flavour: Flavour,
    gpu: Gpu | None,
    options: BuildOptions,
    *,
    force: bool,
    as_json: bool,
) -> None:
    from patchline.runtime.contract import manifest_path
    from patchline.runtime.engine.build import Target
    from patchline.runtime.engine.plans.manifest_copy import needs_manifest, put_manifest
    from patchline.runtime.engine.plans.record import load_record
    from patchline.runtime.engine.plans.wanted_plan import wanted_plan
    from patchline.runtime.progress import ConsoleSteps

    started = time.monotonic()
    target = Target(flavour, gpu.device if gpu else None, options)
    wanted = wanted_plan(plan, model, manifest_path(model), target)
    is_manifest_needed = needs_manifest(model, plan)
    built = None
    if force or wanted.problems():
        built = wanted.build(ConsoleSteps(stderr_console()), _say, force=force)
    if is_manifest_needed:
        put_manifest(model, plan)
        _say(f"{manifest_path(plan)} is a copy of {manifest_path(model)}")
    seconds = time.monotonic() - started
    record, is_new = built or load_record(plan), built is not None
    print_plan(plan, record, seconds, is_new=is_new, as_json=as_json)


def _plan_path(model: Path, out: Path | None) -> Path:
    from patchline.runtime.errors import ConfigurationError

    if model.suffix.lower() != ".onnx":
        raise ConfigurationError(
            f"{model} is no .onnx file. A plan is built from the file that export-model writes"
        )
    if out is None:
        return model.with_suffix(".trt")
    if out.is_dir():
        return out / model.with_suffix(".trt").name
    if out.suffix.lower() != ".trt":
        raise ConfigurationError(f"--out is {out}, expected a file ending in .trt, or a folder")
    return out


def _options(batch: str, rows: str | None, workspace: str | None, tf32: bool) -> BuildOptions:
    from patchline.runtime.byte_size import parse_bytes
    from patchline.runtime.engine.plans.record import BuildOptions
    from patchline.runtime.errors import ConfigurationError

    bytes_ = parse_bytes(workspace, "--workspace") if workspace is not None else None
    if bytes_ is not None and bytes_ < _LEAST_WORKSPACE_BYTES:
        raise ConfigurationError(f"--workspace is {workspace}, expected 1M or more, such as 2G")
    return BuildOptions(
        batch=_three("--batch", batch, "1:1:8"),
        workspace_bytes=bytes_,
        tf32=tf32,
        bank_rows=_three("--bank-rows", rows, "288:2048:8192") if rows is not None else None,
    )


def _three(option: str, text: str, example: str) -> tuple[int, int, int]:
    from patchline.runtime.errors import ConfigurationError

    match = re.fullmatch(r"([1-9]\d{0,8}):([1-9]\d{0,8}):([1-9]\d{0,8})", text.strip())
    if match is None:
        raise ConfigurationError(
            f"{option} is {text!r}, expected smallest:usual:largest, such as {example}"
        )
    return int(match[1]), int(match[2]), int(match[3])


def _open_gpu(flavour: Flavour, index: int) -> Gpu | None:
    from patchline.runtime.engine.compat import TENSORRT_RTX
    from patchline.runtime.engine.cuda.gpu import open_gpu
    from patchline.runtime.errors import EngineError

    try:
        return open_gpu(index)
    except EngineError as error:
        # TensorRT for RTX needs no GPU to build: worth having where models are checked.
        if flavour.name != TENSORRT_RTX:
            raise
        print_warning(f"{error}. The plan is built for no GPU: it shows that it can be built")
        return None


def _say(sentence: str) -> None:
    stderr_console().print(sentence, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``build-engine``."""
    run_command(build_engine)


if __name__ == "__main__":
    main()
