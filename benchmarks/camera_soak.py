"""``python -m patchline.benchmarks.camera_soak``: one ``run-camera`` at full speed for long.

A real process judges a video of 50,000 frames (or for 30 minutes, whichever is first) with the
rotated log, the image store and the page switched on. Its memory and its open files are read from
/proc every few seconds; its JSON lines are counted: no frame of a file may be missing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchline.benchmarks.camera_lines import make_model, write_video
from patchline.benchmarks.report import write_result
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.errors import DataError
from patchline.runtime.progress import ConsoleSteps

WARM_UP, END = 0.1, 0.9
"""Memory after the first tenth of the run is compared with that of the last tenth."""

_PAGE_BYTES = 4096
_SIZE = (240, 320)


@dataclass
class Samples:
    """What /proc said of the process.

    Attributes:
        times_s: since its first frame.
        memory_bytes: resident.
        files: open file descriptors.
        threads: of the process.
    """

    times_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int, elapsed_s: float) -> None:
        """Look at the process once."""
        folder = Path(f"/proc/{pid}")
        resident = int((folder / "statm").read_text().split()[1])
        self.memory_bytes.append(resident * _PAGE_BYTES)
        self.files.append(len(list((folder / "fd").iterdir())))
        self.threads.append(len(list((folder / "task").iterdir())))
        self.times_s.append(elapsed_s)

    def ends(self, values: list[int]) -> tuple[float, float]:
        """Medians of the tenth after the warm-up, and of the last tenth."""
        last_s = self.times_s[-1]
        pairs = list(zip(self.times_s, values, strict=True))
        first = [v for t, v in pairs if WARM_UP * last_s <= t <= 2 * WARM_UP * last_s]
        last = [v for t, v in pairs if t >= END * last_s]
        return statistics.median(first), statistics.median(last)


def soak_camera(
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    image_size: Annotated[int, typer.Option(min=32, help="Side of the model's frames.")] = 128,
    frames: Annotated[int, typer.Option(min=100, help="Frames of the video.")] = 50_000,
    minutes: Annotated[float, typer.Option(min=0.01, help="The longest it runs.")] = 30.0,
    every_s: Annotated[float, typer.Option(min=0.05, help="Between two looks.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Run it and write frames lost, memory and open files."""
    with tempfile.TemporaryDirectory(prefix="patchline-") as name:
        folder = Path(name)
        model = make_model(folder, backbone, image_size, ConsoleSteps(stderr_console()))
        video = write_video(folder / "line.avi", frames, _SIZE)
        samples, seen, elapsed_s = _soak(model, video, folder, 60 * minutes, every_s)
    if len(samples.times_s) < 20:
        raise DataError("the run was too short to compare its ends: give more --frames")
    memory, files = samples.ends(samples.memory_bytes), samples.ends(samples.files)
    results: dict[str, Any] = {
        "backbone": backbone,
        "image_size_px": image_size,
        "frame_px": list(_SIZE),
        "video_frames": frames,
        "seconds": round(elapsed_s, 1),
        "frames_judged": seen.count,
        "frames_lost": seen.lost,
        "fps": round(seen.count / elapsed_s, 1),
        "resident_bytes_after_warm_up": memory[0],
        "resident_bytes_at_the_end": memory[1],
        "resident_growth": round(memory[1] / memory[0] - 1, 5),
        "open_files_after_warm_up": files[0],
        "open_files_at_the_end": files[1],
        "threads_at_the_end": samples.ends(samples.threads)[1],
        "samples": {
            "seconds": [round(t, 1) for t in samples.times_s],
            "resident_mib": [round(v / 2**20, 2) for v in samples.memory_bytes],
            "open_files": samples.files,
        },
    }
    path = write_result("camera-soak", results, out)
    console = Console(highlight=False)
    console.print_json(data={name: value for name, value in results.items() if name != "samples"})
    console.print(f"written to {path}")


@dataclass
class _Seen:
    """The frames that were told of: how many, and how many numbers in between are missing."""

    count: int = 0
    lost: int = 0

    def read(self, lines: Iterator[str]) -> None:
        expected = 0
        for line in lines:
            frame = json.loads(line)["frame"]
            self.lost += frame - expected
            expected = frame + 1
            self.count += 1


def _soak(
    model: Path, video: Path, folder: Path, longest_s: float, every_s: float
) -> tuple[Samples, _Seen, float]:
    options = ["--engine", model, "--source", video, "--headless", "--dashboard", "--port", "0"]
    options += ["--log", folder / "line.log", "--log-size", "1M", "--log-files", "3"]
    options += ["--store", folder / "store", "--store-size", "20M", "--store-every", "100"]
    options += ["--state", folder / "state"]
    program = [sys.executable, "-m", "patchline.runtime.cli.run_camera", *map(str, options)]
    samples, seen = Samples(), _Seen()
    launched = time.monotonic()
    first_s: float | None = None  # its start is no part of it
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        reading = threading.Thread(target=seen.read, args=(iter(process.stdout),), daemon=True)
        reading.start()
        while process.poll() is None and time.monotonic() - launched < longest_s:
            if seen.count:
                first_s = first_s or time.monotonic()
                samples.take(process.pid, time.monotonic() - first_s)
            time.sleep(every_s)
        elapsed_s = time.monotonic() - (first_s or launched)
        process.terminate()
        reading.join(60.0)
    if process.returncode != 0:
        raise DataError(f"run-camera ended with status {process.returncode}: see above")
    return samples, seen, elapsed_s


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.camera_soak``."""
    run_command(soak_camera)


if __name__ == "__main__":
    main()
