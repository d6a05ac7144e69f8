"""One camera of a line: how its frames are made ready, by what it decides, what it has seen."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from patchline.runtime.camera.adjust import AS_IT_IS, Adjustment
from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.states import OnState
from patchline.runtime.camera.supervised import CameraReader
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.contract import Manifest, ModelSize
from patchline.runtime.decisions.decider import Decider
from patchline.runtime.decisions.mask import Mask, score_within
from patchline.runtime.decisions.trigger import EVERY_FRAME, Trigger
from patchline.runtime.engine.base import Prediction
from patchline.runtime.errors import EngineError
from patchline.runtime.line.figures import Figures
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.verdict import JudgedFrame, StageTimes, Verdict, map_threshold


@dataclass(frozen=True)
class Prepared:
    """A frame that is ready to be judged.

    Attributes:
        captured: as it came, flipped and cropped.
        frame: uint8 ``[H, W, 3]`` BGR at model size.
        preprocess_ms: what it took.
        mask: what is inspected of it. It belongs to the crop, and both may be others by the time
            that the frame is judged.
    """

    captured: CapturedFrame
    frame: Frame
    preprocess_ms: float
    mask: Mask | None


@dataclass(frozen=True)
class Rules:
    """How one camera judges; a whole set is swapped at once while the line runs.

    Attributes:
        adjustment: flip and crop.
        mask: what is inspected; everything if ``None``.
        threshold: instead of the manifest's.
        trigger: the debounce of events.
    """

    adjustment: Adjustment = AS_IT_IS
    mask: Mask | None = None
    threshold: float | None = None
    trigger: Trigger = EVERY_FRAME


_AS_THE_MANIFEST = Rules()


class Camera:
    """A camera, a stream, a video or a folder, as one of the line's.

    Args:
        name: unique in the line.
        source: its address without credentials.
        open_source: opens it, again and again if need be.
        is_live: whether frames come at their own pace, and are lost when nobody takes them.
        size: of the model.
        decider: makes events of its frames.
        changed: notified at each frame and state; of the whole line.
        rules: how it judges, until they are swapped.
        on_state: told of each change of state.
        limits: of reopening a live source.
        may_end: whether a live source that ends by itself has ended, and is not lost.
        clock: for times.

    Attributes:
        reader: gives its frames.
        figures: what it has seen so far.
        rules: assign another set from any thread; it holds from the next frame on.
    """

    def __init__(
        self,
        name: str,
        source: str,
        open_source: Callable[[], FrameSource],
        *,
        is_live: bool,
        size: ModelSize,
        decider: Decider,
        changed: threading.Condition,
        on_state: OnState,
        rules: Rules = _AS_THE_MANIFEST,
        limits: ReconnectLimits | None = None,
        may_end: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name, self.source, self.is_live = name, source, is_live
        self.decider = decider
        self.figures = Figures()
        self.rules = rules
        self._size, self._clock = size, clock
        self.reader: CameraReader[Prepared] = CameraReader(
            name,
            open_source,
            is_live=is_live,
            changed=changed,
            prepare=self.prepare,
            on_state=on_state,
            limits=limits,
            clock=clock,
            may_end=may_end,
        )

    def prepare(self, captured: CapturedFrame) -> Prepared:
        """Flip, crop and resize a frame.

        Raises:
            FrameError: it is no picture, smaller than the crop, or the mask has another shape.
        """
        start_s, rules = self._clock.monotonic(), self.rules
        image = rules.adjustment.apply(captured.image)
        frame = preprocess(image, self._size)
        if rules.mask is not None:
            rules.mask.check((image.shape[0], image.shape[1]))
        elapsed_ms = 1000.0 * (self._clock.monotonic() - start_s)
        return Prepared(replace(captured, image=image), frame, elapsed_ms, rules.mask)

    def judge(
        self,
        prepared: Prepared,
        prediction: Prediction,
        at: int,
        manifest: Manifest,
        *,
        wait_ms: float,
        infer_ms: float,
    ) -> JudgedFrame:
        """Compare one frame of a batch with the threshold.

        Args:
            prepared: the frame.
            prediction: of the batch.
            at: which of the batch it is.
            manifest: of the product that was looked for.
            wait_ms: how long the frame had lain there when it was taken.
            infer_ms: what the batch took.

        Raises:
            EngineError: the score is not finite; the frame is named.
        """
        rules, captured, mask = self.rules, prepared.captured, prepared.mask
        score, anomaly_map = float(prediction.image_score[at]), prediction.anomaly_map[at]
        # NaN >= threshold is False: without this check a broken model would find every part good.
        if not math.isfinite(score):
            raise EngineError(
                f"{self._label(captured)}: the engine gave the score {score}, expected a finite "
                "number. The model is damaged or its precision overflows; export it again"
            )
        if mask is not None:
            score = score_within(anomaly_map, mask)
            anomaly_map = mask.apply(anomaly_map)
        own = manifest.threshold.value
        verdict = Verdict(
            class_name=manifest.class_name,
            frame=captured.index,
            source=self.source,
            file=captured.file,
            time=captured.time,
            score=score,
            threshold=own if rules.threshold is None else rules.threshold,
            times=StageTimes(captured.read_ms, wait_ms, prepared.preprocess_ms, infer_ms),
            camera=self.name,
        )
        map_value = map_threshold(manifest.threshold, rules.threshold)
        return JudgedFrame(verdict, captured, anomaly_map, prediction.influence_map[at], map_value)

    def _label(self, captured: CapturedFrame) -> str:
        name = f" ({captured.file})" if captured.file is not None else ""
        return f"{self.source}, frame {captured.index}{name}"
