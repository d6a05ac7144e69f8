"""``python -m patchline.benchmarks.camera``: what the camera loop costs beside the engine.

Three questions, each answered in one run on one machine. How near does the loop come to the frame
rate of the bare engine (video and JPEG folder, alternating)? What does it add to the engine's time
from capture to verdict, with a camera at half the engine's pace? And what does the live page cost
while one browser looks (alternating; the viewer is a process of its own on the same machine)?

All of it twice: with an engine that takes every core, so that capture, decoding and the page take
from it what they need; and with one that leaves a core free, as an engine on a GPU does.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from rich.console import Console

from patchline.benchmarks.camera_lines import (
    FRAME_PX,
    Added,
    BareEngine,
    BenchmarkLine,
    make_model,
    opened,
    write_pictures,
    write_video,
)
from patchline.benchmarks.camera_viewer import watched_line
from patchline.benchmarks.report import write_result
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.engine import Engine
from patchline.runtime.progress import ConsoleSteps


def benchmark_camera(
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    image_size: Annotated[int, typer.Option(min=32, help="Side of the model's frames.")] = 256,
    frames: Annotated[int, typer.Option(min=4, help="Frames of each run.")] = 120,
    rounds: Annotated[int, typer.Option(min=2, help="Runs of each kind.")] = 6,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="CPU threads of the engine.  [default: every core, one less]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Measure the loop beside the engine and write ratios, pair by pair."""
    steps = ConsoleSteps(stderr_console())
    with tempfile.TemporaryDirectory(prefix="patchline-") as name:
        folder = Path(name)
        model = make_model(folder, backbone, image_size, steps)
        sources = {
            "video": str(write_video(folder / "line.avi", frames)),
            "pictures": str(write_pictures(folder / "pictures", frames)),
        }
        measured = {
            str(count): _measure(model, count, sources, frames, rounds, folder)
            for count in threads or _core_counts()
        }
    results: dict[str, Any] = {
        "backbone": backbone,
        "image_size_px": image_size,
        "frame_px": list(FRAME_PX),
        "frames": frames,
        "rounds": rounds,
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "engine_threads": measured,
    }
    path = write_result(f"camera-{backbone}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _core_counts() -> list[int]:
    cores = os.cpu_count() or 1
    return [cores, cores - 1] if cores > 1 else [cores]


def _measure(
    model: Path, threads: int, sources: dict[str, str], frames: int, rounds: int, folder: Path
) -> dict[str, Any]:
    with opened(model, threads) as engine:
        found = _throughput(engine, BareEngine(engine, frames), sources, rounds, folder)
        pace = found["video"]["bare_fps"]["median"] / 2
        return {
            "throughput": found,
            "added_latency": _added_latency(engine, pace, 2 * frames, folder),
            "page": _page(engine, sources["video"], rounds, folder),
        }


def _throughput(
    engine: Engine, bare: BareEngine, sources: dict[str, str], rounds: int, folder: Path
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, uri in sources.items():
        alone, loop = _pairs(bare.fps, functools.partial(_loop_fps, uri, engine, folder), rounds)
        found[kind] = {
            "bare_fps": _spread(alone),
            "loop_fps": _spread(loop),
            "loop_over_bare": _spread([b / a for a, b in zip(alone, loop, strict=True)]),
        }
    return found


def _loop_fps(uri: str, engine: Engine, folder: Path) -> float:
    return BenchmarkLine(uri, engine, [], folder).fps()


def _added_latency(engine: Engine, pace_fps: float, frames: int, folder: Path) -> dict[str, Any]:
    height, width = FRAME_PX
    uri = f"test://?fps={pace_fps:.3f}&frames={frames}&width={width}&height={height}"
    added = Added()
    BenchmarkLine(uri, engine, [added], folder).fps()
    p50, p95, p99 = (float(v) for v in np.percentile(added.added_ms, (50, 95, 99)))
    return {
        "pace_fps": round(pace_fps, 2),
        "frames": len(added.added_ms),
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "p99_ms": round(p99, 3),
    }


def _page(engine: Engine, uri: str, rounds: int, folder: Path) -> dict[str, Any]:
    pictures: list[int] = []

    def watched() -> float:
        fps, seen = watched_line(uri, engine, folder)
        pictures.append(seen)
        return fps

    alone, seen = _pairs(functools.partial(_loop_fps, uri, engine, folder), watched, rounds)
    return {
        "without_fps": _spread(alone),
        "with_one_viewer_fps": _spread(seen),
        "with_over_without": _spread([b / a for a, b in zip(alone, seen, strict=True)]),
        "pictures_per_run": _spread([float(count) for count in pictures]),
    }


def _pairs(
    one: Callable[[], float], other: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Both in turn, A B B A, after one run of each that is not counted."""
    one(), other()
    first: list[float] = []
    second: list[float] = []
    for turn in range(rounds):
        for run, into in [(one, first), (other, second)][:: 1 if turn % 2 == 0 else -1]:
            into.append(run())
    return first, second


def _spread(values: list[float]) -> dict[str, float]:
    quartiles = statistics.quantiles(values, n=4)
    return {
        "median": round(statistics.median(values), 4),
        "q1": round(quartiles[0], 4),
        "q3": round(quartiles[2], 4),
    }


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.camera``."""
    run_command(benchmark_camera)


if __name__ == "__main__":
    main()
