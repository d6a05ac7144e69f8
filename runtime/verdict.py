"""What the line says about a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.contract import Threshold


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds that each stage took for one frame.

    Attributes:
        read_ms: the source gave the frame; runs ahead in its own thread, beside the others.
        wait_ms: the frame lay in the buffer: a live frame's age when it was judged.
        preprocess_ms: camera frame to model input.
        infer_ms: the engine.
        output_ms: the outputs that were served before this one looked.
    """

    read_ms: float
    wait_ms: float
    preprocess_ms: float
    infer_ms: float
    output_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """What the loop spent on the frame, from taking it up; reading and waiting not counted."""
        return self.preprocess_ms + self.infer_ms + self.output_ms


@dataclass(frozen=True)
class Verdict:
    """The judgement of one frame.

    Attributes:
        class_name: the product that was looked for; another one once the bank was switched.
        frame: position in the source, from 0.
        source: name of the source, without credentials.
        file: of a picture: its path relative to the folder.
        time: when the frame was captured, with time zone.
        score: raw image score, larger is more anomalous; always finite.
        threshold: what it was compared with.
        times: milliseconds per stage.
        camera: name of the camera in the line.
    """

    class_name: str
    frame: int
    source: str
    file: str | None
    time: datetime
    score: float
    threshold: float
    times: StageTimes
    camera: str = "camera1"

    @property
    def anomalous(self) -> bool:
        """Whether the score is at or above the threshold."""
        return self.score >= self.threshold


@dataclass(frozen=True)
class JudgedFrame:
    """What every output is given.

    Attributes:
        verdict: the judgement.
        captured: the frame as it was judged: flipped and cropped as its camera's settings say.
        anomaly_map: float32 ``[H, W]`` at model size.
        influence_map: float32 ``[H, W]`` at model size, 0 to 1: why.
        map_value: map values at or above it are inside the contour; see :func:`map_threshold`.
    """

    verdict: Verdict
    captured: CapturedFrame
    anomaly_map: npt.NDArray[np.float32]
    influence_map: npt.NDArray[np.float32]
    map_value: float

    def with_output_ms(self, output_ms: float) -> JudgedFrame:
        """The same, with what the outputs took so far."""
        times = replace(self.verdict.times, output_ms=output_ms)
        return replace(self, verdict=replace(self.verdict, times=times))


def map_threshold(manifest: Threshold, threshold: float | None) -> float:
    """The map value of the contour, when frames are decided by ``threshold``.

    It is the manifest's own, moved in proportion where another threshold was asked for, so that
    the picture and the verdict go on saying the same.
    """
    if threshold is None or manifest.value <= 0:
        return manifest.map_value
    return manifest.map_value * threshold / manifest.value
