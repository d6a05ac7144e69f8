"""What may be looked at and changed while a line runs; a dashboard works on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.trigger import Trigger


@dataclass(frozen=True)
class CameraView:
    """A camera as it is now.

    Attributes:
        name: of the camera, unique in the line.
        source: its address without credentials.
        class_name: the product that is looked for.
        state: of the stream.
        detail: why it is in that state, as a sentence; may be empty.
        threshold: image scores at or above it are anomalous.
        own_threshold: the model's, or the configured one, that holds when no other is set.
        trigger: the debounce.
        frames: judged so far.
        anomalous: of them at or above the threshold.
        dropped: frames that a newer one replaced before they could be judged.
        fps: judged frames per second over the latest seconds.
        p50_ms: median over the latest frames of the time from taking a frame up to its verdict;
            ``None`` before the first frame, as the two below.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        is_drifting: whether a drift goes on.
    """

    name: str
    source: str
    class_name: str
    state: StreamState
    detail: str
    threshold: float
    own_threshold: float
    trigger: Trigger
    frames: int
    anomalous: int
    dropped: int
    fps: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    is_drifting: bool


class Controls(Protocol):
    """A running line, from any thread."""

    def cameras(self) -> list[CameraView]:
        """All cameras in the order of the line."""

    def set_threshold(self, camera: str, threshold: float | None) -> None:
        """Decide by another threshold from the next frame on, and after a restart.

        Args:
            camera: name of the camera.
            threshold: finite; ``None`` for the configured one again.

        Raises:
            ConfigurationError: no such camera, or no finite number.
            WriteError: it holds now, and could not be saved for the next start.
        """

    def set_trigger(self, camera: str, trigger: Trigger | None) -> None:
        """Debounce otherwise from the next frame on, and after a restart; see above.

        Raises:
            ConfigurationError: no such camera.
            WriteError: it holds now, and could not be saved for the next start.
        """
