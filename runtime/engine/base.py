"""The one seam that matters: frames in, prediction out (DESIGN section 1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import Manifest
from patchline.runtime.preprocess import Frame

if TYPE_CHECKING:
    from patchline.runtime.bank import Bank


@dataclass(frozen=True)
class Prediction:
    """Raw outputs for a batch; none of them is compared with a threshold.

    Attributes:
        image_score: float32 ``[B]``, larger is more anomalous.
        anomaly_map: float32 ``[B, H, W]``, score per pixel, smoothed.
        influence_map: float32 ``[B, H, W]``, closed-form influence per pixel.
    """

    image_score: npt.NDArray[np.float32]
    anomaly_map: npt.NDArray[np.float32]
    influence_map: npt.NDArray[np.float32]


class Wait(str, enum.Enum):
    """How the CPU waits while a call is computed."""

    SPIN = "spin"
    """ONNX Runtime's idle threads spin for a while before they sleep; its default."""
    CUDA = "cuda"
    """CUDA's default: spin, unless contexts outnumber cores or a Jetson of low power blocks."""
    NONE = "none"
    """A single thread computes, and nothing waits for another."""


@dataclass(frozen=True)
class EngineFacts:
    """How an engine runs, for who measures it.

    Attributes:
        runtime: ``ONNX Runtime`` or TensorRT's flavour.
        version: of it.
        provider: ONNX Runtime's provider; ``TensorRT`` for a plan.
        gpu: model and compute capability; ``None`` where none computes or it is not told.
        threads: CPU threads of one call as they were asked for; ``None`` for the runtime's choice.
        cuda_graph: whether calls are replayed as CUDA graphs.
        wait: how the CPU waits.
        least_batch: fewest frames in one call.
        most_batch: most frames in one call; ``None`` where there is no limit.
        in_flight: how many calls may be under way at once.
    """

    runtime: str
    version: str
    provider: str
    gpu: str | None
    threads: int | None
    cuda_graph: bool
    wait: Wait
    least_batch: int
    most_batch: int | None
    in_flight: int


@dataclass(frozen=True)
class PhaseTimes:
    """The parts of one call on a GPU, in milliseconds.

    Attributes:
        h2d_ms: frames to the GPU, without the copy into pinned memory before.
        compute_ms: on the GPU, by CUDA's events.
        d2h_ms: outputs from the GPU, without the copy out of pinned memory after.
        enqueue_ms: of the CPU, to queue the computing.
    """

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float


class Engine(Protocol):
    """Anything that judges frames: ONNX Runtime, TensorRT, a fake in a test.

    An engine is open once it is made, and is a context manager that closes it.
    """

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that runs; with an external bank, that of the bank."""

    @property
    def description(self) -> str:
        """What runs it, for people: ``ONNX Runtime 1.20, CPUExecutionProvider``."""

    def infer(self, frames: Frame) -> Prediction:
        """Judge frames.

        Args:
            frames: uint8 ``[B, H, W, 3]`` BGR at model size; any B from 1.

        Raises:
            FrameError: the frames do not fit the model.
            EngineError: the engine failed or is closed.
        """

    def load_bank(self, bank: Path | Bank) -> None:
        """Judge by another product's memory bank from the next frame on; no rebuild.

        ``manifest`` is the new bank's from then on. A bank that is refused changes nothing.

        Args:
            bank: a ``.bank`` file that was fitted for the model that runs, or what was read
                from one.

        Raises:
            ConfigurationError: the model holds its own bank.
            ModelError: the file is missing, damaged, or for another model.
            EngineError: the engine is closed, or has no room for it.
        """

    def close(self) -> None:
        """Release what the engine holds. A second call does nothing."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *exc_info: Any) -> None: ...
