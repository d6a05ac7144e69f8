"""``run-camera``: judge what a camera, stream, video or folder shows, frame by frame."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchline.runtime.cli.camera_report import print_head, print_summary
from patchline.runtime.cli.command import (
    EXIT_ERROR,
    Provider,
    print_error,
    print_warning,
    run_command,
)

if TYPE_CHECKING:
    from patchline.runtime.camera.source import FrameSource
    from patchline.runtime.engine import Engine
    from patchline.runtime.errors import ImageReadError, WriteError
    from patchline.runtime.outputs.base import Output
    from patchline.runtime.pipeline import Pipeline


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def run_camera(
    engine: Annotated[Path, typer.Option(help="Exported model (.onnx, with its .json).")],
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
    provider: Annotated[
        Provider, typer.Option(help="Where ONNX Runtime computes.")
    ] = Provider.AUTO,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="CPU threads per inference; all by default."),
    ] = None,
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
    from patchline.runtime.engine import open_engine
    from patchline.runtime.outputs.overlay import map_threshold
    from patchline.runtime.pipeline import Pipeline

    logging.basicConfig(format="warning: %(message)s")
    stop = threading.Event()
    on_unreadable = _warn_of_skipped if skip_unreadable else None
    with open_engine(engine, provider=provider.value, threads=threads) as opened:
        frames = open_source(source, on_unreadable=on_unreadable)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(frames.close)
            map_value = map_threshold(opened.manifest.threshold, threshold)
            outputs = _open_outputs(frames, map_value, output, headless, stop)
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
            on_output_error=_warn_of_output,
        )
        _run(pipeline, stop)


def _open_outputs(
    source: FrameSource,
    map_value: float,
    output: Path | None,
    headless: bool,
    stop: threading.Event,
) -> list[Output]:
    from patchline.runtime.outputs.annotated import open_annotated_output
    from patchline.runtime.outputs.jsonl import JsonLines

    outputs: list[Output] = []
    if not headless:
        from patchline.runtime.outputs.window import Window

        outputs.append(Window(stop, map_value))
    if output is not None:
        outputs.append(open_annotated_output(output, source, map_value))
    # Last, so that its lines hold the time that the others took.
    return [*outputs, JsonLines(sys.stdout)]


def _warm_up(engine: Engine) -> None:
    # The first inference allocates; without this it would be a live line's slowest frame.
    import numpy as np

    size = engine.manifest.model_size
    engine.infer(np.zeros((1, size.height, size.width, 3), np.uint8))


def _run(pipeline: Pipeline, stop: threading.Event) -> None:
    try:
        with _signals_set(stop):
            pipeline.run()
    finally:
        print_summary(pipeline.summary)
        _release_stdout()
        if pipeline.failures:
            failed = ", ".join(output.name for output, _ in pipeline.failures)
            print_error(f"not complete: {failed} (see the warning above)")
    if pipeline.failures:
        raise typer.Exit(EXIT_ERROR)


@contextlib.contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
