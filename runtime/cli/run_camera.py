"""``run-camera``: judge what a camera, stream, video or folder shows, frame by frame."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchline.runtime.cli.camera_engine import open_camera_engine
from patchline.runtime.cli.camera_outputs import open_outputs
from patchline.runtime.cli.camera_report import print_bank, print_head, print_summary
from patchline.runtime.cli.command import (
    EXIT_ERROR,
    FlavourName,
    Provider,
    print_error,
    print_warning,
    run_command,
)
from patchline.runtime.cli.signals import call_on_hangup, stop_on_signals

if TYPE_CHECKING:
    from patchline.runtime.bank_switch import BankSwitch
    from patchline.runtime.engine import Engine
    from patchline.runtime.errors import ImageReadError, WriteError
    from patchline.runtime.outputs.base import Output
    from patchline.runtime.pipeline import Pipeline


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def run_camera(
    engine: Annotated[
        Path, typer.Option(help="Exported model (.onnx) or its TensorRT plan (.trt), with .json.")
    ],
    source: Annotated[
        str,
        typer.Option(
            help="Folder, picture, video, camera number, rtsp:// or http:// stream, or test://."
        ),
    ],
    headless: Annotated[bool, typer.Option("--headless", help="No live view.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Annotated frames: a video (.mp4, .avi, .mkv) or a folder."),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="End after so many judged frames.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(callback=_finite, help="Decide by this score, not the manifest's."),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            help="A product's .bank file, for a model without one; SIGHUP reads it again."
        ),
    ] = None,
    provider: Annotated[
        Provider, typer.Option(help="Where ONNX Runtime computes.")
    ] = Provider.AUTO,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="CPU threads per inference; all by default."),
    ] = None,
    device: Annotated[
        int | None, typer.Option(min=0, help="Index of the GPU that runs a plan; 0 by default.")
    ] = None,
    flavour: Annotated[
        FlavourName | None, typer.Option(help="Which TensorRT; what is installed by default.")
    ] = None,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="A plan that does not fit is an error.")
    ] = False,
    no_cuda_graph: Annotated[
        bool, typer.Option("--no-cuda-graph", help="Launch kernels one by one.")
    ] = False,
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read."),
    ] = False,
) -> None:
    """Judge frames: one JSON line per frame on stdout, all else on stderr.

    Ctrl-C, SIGTERM and q in the live view end it with a summary.
    """
    from patchline.runtime.camera.native_logs import silence_native_logs

    silence_native_logs()  # before the first import of cv2

    from patchline.runtime.camera.open import open_source
    from patchline.runtime.pipeline import Pipeline

    logging.basicConfig(format="warning: %(message)s")
    stop = threading.Event()
    on_unreadable = _warn_of_skipped if skip_unreadable else None
    switch = _bank_switch(bank, threshold)
    with contextlib.ExitStack() as open_until_the_end:
        if switch is not None:  # also while the engine opens, so that no SIGHUP ends the program
            open_until_the_end.enter_context(call_on_hangup(switch.request))
        opened = open_until_the_end.enter_context(
            open_camera_engine(
                engine,
                bank,
                provider=provider,
                threads=threads,
                device=device,
                flavour=flavour,
                no_build=no_build,
                no_cuda_graph=no_cuda_graph,
            )
        )
        frames = open_source(source, on_unreadable=on_unreadable)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(frames.close)
            outputs = open_outputs(frames, output, headless, stop)
            on_failure.pop_all()
        print_head(opened, frames, threshold)
        _warm_up(opened)
        pipeline = Pipeline(
            frames,
            opened,
            outputs,
            threshold=threshold,
            max_frames=max_frames,
            stop=stop,
            before_frame=functools.partial(switch.apply, opened) if switch else None,
            on_output_error=_warn_of_output,
        )
        _run(pipeline, stop)


def _bank_switch(bank: Path | None, threshold: float | None) -> BankSwitch | None:
    from patchline.runtime.bank_switch import BankSwitch

    if bank is None:
        return None
    return BankSwitch(
        bank,
        on_switched=lambda manifest: print_bank(bank, manifest, threshold),
        on_refused=lambda error: print_warning(f"{error}. The bank before goes on"),
    )


def _warm_up(engine: Engine) -> None:
    # The first inference allocates; without this it would be a live line's slowest frame.
    import numpy as np

    size = engine.manifest.model_size
    engine.infer(np.zeros((1, size.height, size.width, 3), np.uint8))


def _run(pipeline: Pipeline, stop: threading.Event) -> None:
    try:
        with stop_on_signals(stop):
            pipeline.run()
    finally:
        print_summary(pipeline.summary)
        _release_stdout()
        if pipeline.failures:
            failed = ", ".join(output.name for output, _ in pipeline.failures)
            print_error(f"not complete: {failed} (see the warning above)")
    if pipeline.failures:
        raise typer.Exit(EXIT_ERROR)


def _release_stdout() -> None:
    # What could not be written would be tried again, with a traceback, when Python exits.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")


def _warn_of_output(output: Output, error: WriteError) -> None:
    print_warning(f"{error}. Judging goes on without {output.name}")


def main() -> None:
    """Entry point of ``run-camera``."""
    run_command(run_camera)


if __name__ == "__main__":
    main()
