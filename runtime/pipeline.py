"""The camera loop: capture -> preprocess -> infer -> decide -> outputs.

Capture runs ahead in the reader's thread, so reading the next frame overlaps with judging this
one. The rest is in sequence: on one device, inference is what there is to wait for.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np

from patchline.runtime.camera.reader import FrameReader
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Engine
from patchline.runtime.errors import EngineError, FrameError, WriteError
from patchline.runtime.outputs.base import Output, OutputClosedError
from patchline.runtime.preprocess import preprocess
from patchline.runtime.verdict import (
    JudgedFrame,
    StageTimes,
    Summary,
    Tally,
    Verdict,
    map_threshold,
)

OnOutputError = Callable[[Output, WriteError], None]
"""Told once of each output that failed; the inspection goes on without it."""


class Pipeline:
    """Judges the frames of a source, once.

    Args:
        source: what to read; the pipeline closes it.
        engine: what judges; stays open.
        outputs: given each judged frame, in this order; the pipeline closes them. The last ones
            see in ``output_ms`` what the ones before them took.
        threshold: instead of the manifest's, whichever product the engine judges.
        max_frames: end after so many judged frames.
        stop: set it (a signal handler may) to end after the frame in hand.
        before_frame: called before each frame is judged, in the engine's thread; it may switch
            the engine's memory bank.
        on_output_error: told of an output that fails.
        clock: for the stage times.

    Attributes:
        failures: the outputs that failed, with their errors.
    """

    def __init__(
        self,
        source: FrameSource,
        engine: Engine,
        outputs: Sequence[Output] = (),
        *,
        threshold: float | None = None,
        max_frames: int | None = None,
        stop: threading.Event | None = None,
        before_frame: Callable[[], None] | None = None,
        on_output_error: OnOutputError = lambda output, error: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.failures: list[tuple[Output, WriteError]] = []
        self._source = source
        self._engine = engine
        self._outputs = list(outputs)
        self._threshold = threshold
        self._before_frame = before_frame
        self._max_frames = max_frames
        self._stop = stop or threading.Event()
        self._on_output_error = on_output_error
        self._clock = clock
        self._tally = Tally()
        self._reader = FrameReader(source, self._stop)
        self._started_s = self._ended_s = 0.0

    @property
    def summary(self) -> Summary:
        """The figures of the run, also of one that ended in an error."""
        return self._tally.summary(
            elapsed_s=self._ended_s - self._started_s,
            dropped=self._reader.dropped,
            skipped_unreadable=self._source.skipped_unreadable,
        )

    def run(self) -> Summary:
        """Judge frames until the source ends, ``max_frames`` are done, or ``stop`` is set.

        The outputs are finished whatever happens.

        Raises:
            SourceError: the source failed or ended before it should.
            ImageReadError: a picture cannot be read.
            FrameError: a frame is no picture; it is named.
            EngineError: the engine failed, or gave a score that is not finite; the frame is named.
            WriteError: the last output that was left failed.
        """
        self._started_s = self._ended_s = self._clock.monotonic()
        try:
            with self._reader, contextlib.suppress(OutputClosedError):
                self._judge_all()
        finally:
            self._ended_s = self._clock.monotonic()
            self._close_outputs()
        return self.summary

    def _judge_all(self) -> None:
        for captured in self._reader:
            judged = self._judge(captured)
            self._tally.add(self._put_out(judged).verdict)
            if self._max_frames is not None and self._tally.frames >= self._max_frames:
                return

    def _judge(self, captured: CapturedFrame) -> JudgedFrame:
        if self._before_frame is not None:
            self._before_frame()
        taken = self._clock.now()
        start_s = self._clock.monotonic()
        try:
            frame = preprocess(captured.image, self._engine.manifest.model_size)
        except FrameError as error:
            raise FrameError(f"{self._label(captured)}: {error}") from error
        ready_s = self._clock.monotonic()
        prediction = self._engine.infer(frame[np.newaxis])
        done_s = self._clock.monotonic()
        # After it: an engine that recovered meanwhile has read its bank again.
        manifest = self._engine.manifest
        times = StageTimes(
            read_ms=captured.read_ms,
            wait_ms=max(0.0, 1000.0 * (taken - captured.time).total_seconds()),
            preprocess_ms=1000.0 * (ready_s - start_s),
            infer_ms=1000.0 * (done_s - ready_s),
        )
        verdict = self._decide(captured, manifest, float(prediction.image_score[0]), times)
        map_value = map_threshold(manifest.threshold, self._threshold)
        maps = prediction.anomaly_map[0], prediction.influence_map[0]
        return JudgedFrame(verdict, captured, *maps, map_value)

    def _decide(
        self, captured: CapturedFrame, manifest: Manifest, score: float, times: StageTimes
    ) -> Verdict:
        # NaN >= threshold is False: without this check a broken model would find every part good.
        if not math.isfinite(score):
            raise EngineError(
                f"{self._label(captured)}: the engine gave the score {score}, expected a finite "
                "number. The model is damaged or its precision overflows; export it again"
            )
        own = manifest.threshold.value
        return Verdict(
            class_name=manifest.class_name,
            frame=captured.index,
            source=self._source.name,
            file=captured.file,
            time=captured.time,
            score=score,
            threshold=own if self._threshold is None else self._threshold,
            times=times,
        )

    def _put_out(self, judged: JudgedFrame) -> JudgedFrame:
        start_s = self._clock.monotonic()
        for output in list(self._outputs):
            try:
                output.write(judged)
            except WriteError as error:
                self._retire(output, error)
            judged = judged.with_output_ms(1000.0 * (self._clock.monotonic() - start_s))
        return judged

    def _retire(self, output: Output, error: WriteError) -> None:
        self._outputs.remove(output)
        with contextlib.suppress(WriteError):  # it has failed already
            output.close()
        if not self._outputs:
            raise error  # nobody would learn what is found from here on
        self._fail(output, error)

    def _close_outputs(self) -> None:
        # An exit stack closes all of them, whatever one of them raises.
        with contextlib.ExitStack() as stack:
            for output in reversed(self._outputs):
                stack.callback(self._close, output)

    def _close(self, output: Output) -> None:
        try:
            output.close()
        except WriteError as error:
            self._fail(output, error)

    def _fail(self, output: Output, error: WriteError) -> None:
        self.failures.append((output, error))
        self._on_output_error(output, error)

    def _label(self, captured: CapturedFrame) -> str:
        name = f" ({captured.file})" if captured.file is not None else ""
        return f"{self._source.name}, frame {captured.index}{name}"
