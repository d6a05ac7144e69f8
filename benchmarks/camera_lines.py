"""Lines for :mod:`patchline.benchmarks.camera`: a model, sources and one run of the loop."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from patchline.export.config import make_settings
from patchline.export.datasets import good_pictures
from patchline.export.demo.pictures import write_demo_data
from patchline.export.exporter import export_model
from patchline.export.fit import fit
from patchline.runtime.camera.open import is_live_address, open_source
from patchline.runtime.camera.test_pattern import draw_part
from patchline.runtime.decisions.decider import Decider
from patchline.runtime.decisions.event import Notice
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.engine import Engine, open_engine
from patchline.runtime.errors import ImageReadError
from patchline.runtime.line.camera import Camera
from patchline.runtime.line.fan_out import FanOut
from patchline.runtime.line.inspection import Inspection
from patchline.runtime.line.live_controls import LineControls
from patchline.runtime.line.overrides import Overrides
from patchline.runtime.outputs.base import Output
from patchline.runtime.outputs.jsonl import JsonLines
from patchline.runtime.outputs.queued import QueuedOutput
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.progress import Steps
from patchline.runtime.verdict import JudgedFrame

FRAME_PX = (480, 640)
"""Height and width of the frames: what a cheap camera gives."""

_DRAWN = 16
_FPS = 30.0


def make_model(folder: Path, backbone: str, image_size: int, steps: Steps) -> Path:
    """An exported model with an untrained backbone; its speed is that of a trained one."""
    data = folder / "data"
    write_demo_data(data, class_name="part", good=12, test_good=1, test_defective=1)
    settings = make_settings(
        {
            "backbone": backbone,
            "weights": "random",
            "image_size": (image_size, image_size),
            # 2,048 rows of 12 pictures: what bottle's 1 % bank has.
            "coreset_ratio": min(1.0, 2048 / (12 * (image_size // 8) ** 2)),
        }
    )
    fitted = fit(good_pictures(data, "part"), settings, steps, _refuse)
    return export_model(fitted, settings, folder / "model", steps)


def write_video(path: Path, frames: int, size: tuple[int, int] = FRAME_PX) -> Path:
    """A video of drawn parts (MJPEG in AVI: every frame is coded for itself, as cameras do)."""
    parts = [draw_part(seed, size=size)[0] for seed in range(_DRAWN)]
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, _FPS, (size[1], size[0]))
    for index in range(frames):
        writer.write(parts[index % _DRAWN])
    writer.release()
    return path


def write_pictures(folder: Path, count: int) -> Path:
    """A folder of JPEG files of drawn parts."""
    folder.mkdir(parents=True)
    parts = [draw_part(seed, size=FRAME_PX)[0] for seed in range(_DRAWN)]
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), parts[index % _DRAWN])
    return folder


def _refuse(error: ImageReadError) -> None:
    raise error


class BareEngine:
    """The engine alone: frames that are at model size already, one after the other."""

    def __init__(self, engine: Engine, frames: int) -> None:
        self._engine, self._frames = engine, frames
        size = engine.manifest.model_size
        self._inputs: list[Frame] = [
            preprocess(draw_part(seed, size=FRAME_PX)[0], size)[np.newaxis]
            for seed in range(_DRAWN)
        ]

    def fps(self) -> float:
        """Frames per second over one run."""
        started = time.perf_counter()
        for index in range(self._frames):
            self._engine.infer(self._inputs[index % _DRAWN])
        return self._frames / (time.perf_counter() - started)


@dataclass
class Added:
    """An output that notes what the loop adds to the engine's time, capture to verdict.

    Attributes:
        added_ms: per frame, the time from its capture to its verdict, less the engine's.
        name: for messages.
    """

    added_ms: list[float] = field(default_factory=list)
    name: str = "the benchmark"

    def write(self, judged: JudgedFrame) -> None:
        """Note one frame."""
        age = time.time() - judged.verdict.time.timestamp()
        self.added_ms.append(1e3 * age - judged.verdict.times.infer_ms)

    def notify(self, notice: Notice) -> None:
        """Not used."""

    def close(self) -> None:
        """Nothing is held."""


class BenchmarkLine:
    """One camera, the engine and its outputs, as ``run-camera`` puts them together.

    Args:
        uri: of the source.
        engine: what judges; stays open.
        direct: outputs that are called in the loop; JSON lines are written besides.
        state: folder for what is set by hand.
    """

    def __init__(self, uri: str, engine: Engine, direct: list[Output], state: Path) -> None:
        changed, is_live = threading.Condition(), is_live_address(uri)
        self._camera = Camera(
            "camera1",
            uri,
            lambda: open_source(uri),
            is_live=is_live,
            size=engine.manifest.model_size,
            decider=Decider("camera1", trigger=Trigger(), drift=None),
            changed=changed,
            on_state=lambda change: None,
            may_end=True,
        )
        self._engine, self._direct, self._changed = engine, direct, changed
        self.controls = LineControls(
            [self._camera], lambda: engine.manifest, Overrides(state / "overrides.json", print)
        )

    def fps(self) -> float:
        """Run to the end; frames per second from the first frame to the last one's verdict."""
        with Path(os.devnull).open("w") as null:
            lines = QueuedOutput(JsonLines(null), is_lossless=not self._camera.is_live)
            outputs = FanOut([lines], self._direct)
            inspection = Inspection([self._camera], self._engine, outputs, changed=self._changed)
            inspection.run()
        return self._camera.figures.frames / inspection.elapsed_s


@contextlib.contextmanager
def opened(path: Path, threads: int | None) -> Iterator[Engine]:
    """The engine, warmed up."""
    with open_engine(path, provider="cpu", threads=threads) as engine:
        size = engine.manifest.model_size
        for _ in range(10):
            engine.infer(np.zeros((1, size.height, size.width, 3), np.uint8))
        yield engine
