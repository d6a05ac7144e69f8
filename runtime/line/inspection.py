"""The loop of a line: frames of all cameras -> one engine -> verdicts and events -> outputs.

Each camera captures in a thread of its own and each output writes in one of its own, so that
between two calls of the engine there is next to nothing to do. Frames that are there at the same
time go through the engine in one call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

import numpy as np

from patchline.runtime.camera.states import StreamState
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Event
from patchline.runtime.engine.base import Engine, Prediction
from patchline.runtime.line.camera import Camera, Prepared
from patchline.runtime.line.fan_out import FanOut
from patchline.runtime.line.together import close_together
from patchline.runtime.line.watchdog import Heartbeat
from patchline.runtime.verdict import JudgedFrame

GATHER_S = 0.002
"""How long a live frame waits for those of the other cameras, to be judged in one call."""

_POLL_S = 0.05  # a stop asked for in a signal handler may not take locks, so it is looked at

Batch = list[tuple[Camera, Prepared]]


class Inspection:
    """Judges the frames of several cameras until they end or it is told to stop.

    Args:
        cameras: at least one; the inspection starts and closes them.
        engine: what judges; stays open.
        outputs: told of frames and events; the inspection closes them.
        changed: the condition that the cameras notify.
        max_frames: end after so many judged frames of all cameras together.
        stop: set it (a signal handler may) to end after the frames in hand.
        between_frames: called before each call of the engine, and often while no frame comes, in
            the engine's thread; it may switch the engine's memory bank and the cameras' rules.
        heartbeat: busy while the engine or ``between_frames`` works, for a watchdog. The outputs
            limit their time themselves.
        clock: for times.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        engine: Engine,
        outputs: FanOut,
        *,
        changed: threading.Condition,
        max_frames: int | None = None,
        stop: threading.Event | None = None,
        between_frames: Callable[[], None] = lambda: None,
        heartbeat: Heartbeat | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._cameras, self._engine, self._outputs = list(cameras), engine, outputs
        self._changed, self._clock = changed, clock
        self._left = max_frames
        self._stop = stop or threading.Event()
        self._between_frames = between_frames
        self._heartbeat = heartbeat or Heartbeat(clock)
        self._waits_for_others = len(self._cameras) > 1
        self._going_on = list(self._cameras)
        self.elapsed_s = 0.0

    def run(self) -> None:
        """Judge frames until every camera is over, ``max_frames`` are done, or ``stop`` is set.

        The cameras and outputs are closed whatever happens.

        Raises:
            SourceError: a camera, video or folder failed; the others went on to their end.
            ImageReadError: a picture cannot be read.
            FrameError: a picture is none; it is named.
            EngineError: the engine failed, or gave a score that is not finite; the frame is named.
            WriteError: no output is left that could be written.
        """
        started_s = self._clock.monotonic()
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(self._outputs.close)
            at_the_end.callback(self._close_cameras)
            try:
                for camera in self._cameras:
                    camera.reader.start()
                self._turn()
                self._outputs.raise_if_lost()
            finally:
                for camera in self._cameras:
                    self._end_events(camera)
                self.elapsed_s = self._clock.monotonic() - started_s
        self._raise_failures()

    def _turn(self) -> None:
        while self._outputs.is_open and (batch := self._next_batch()):
            with self._heartbeat.busy():
                self._between_frames()
                found = self._judge(batch)
            for camera, judged in found:
                self._put_out(camera, judged)

    def _next_batch(self) -> Batch:
        """The frames that are there; waits for one, and a moment for those of other cameras."""
        batch: Batch = []
        while not batch and not self._is_over():
            self._end_events_of_ended()
            batch = self._take(self._cameras)
            if not batch:
                self._idle()
        if batch and self._waits_for_others:
            taken = {camera.name for camera, _ in batch}
            others = [c for c in self._cameras if c.name not in taken and _may_come(c)]
            if others:
                self._wait(GATHER_S)
                batch += self._take(others)
        return batch if self._left is None else batch[: self._left]

    def _idle(self) -> None:
        # All cameras may be lost for days: settings that are read again must not wait for them.
        with self._heartbeat.busy():
            self._between_frames()
        self._wait(_POLL_S)

    def _take(self, cameras: Sequence[Camera]) -> Batch:
        frames = ((camera, camera.reader.poll()) for camera in cameras)
        return [(camera, frame) for camera, frame in frames if frame is not None]

    def _wait(self, seconds: float) -> None:
        with self._changed:
            if not any(camera.reader.is_ready for camera in self._cameras):
                self._changed.wait(seconds)

    def _is_over(self) -> bool:
        is_done = self._left is not None and self._left <= 0
        is_over = is_done or self._stop.is_set()
        return is_over or all(camera.reader.is_over for camera in self._cameras)

    def _judge(self, batch: Batch) -> list[tuple[Camera, JudgedFrame]]:
        taken_s = self._clock.monotonic()
        prediction, infer_ms = self._infer(batch)
        # After it: an engine that recovered meanwhile has read its bank again.
        manifest = self._engine.manifest
        found = []
        for at, (camera, prepared) in enumerate(batch):
            wait_ms = _waited_ms(prepared, taken_s)
            judged = camera.judge(
                prepared, prediction, at, manifest, wait_ms=wait_ms, infer_ms=infer_ms
            )
            found.append((camera, judged))
        return found

    def _infer(self, batch: Batch) -> tuple[Prediction, float]:
        frames = (
            batch[0][1].frame[np.newaxis]
            if len(batch) == 1
            else np.stack([prepared.frame for _, prepared in batch])
        )
        start_s = self._clock.monotonic()
        prediction = self._engine.infer(frames)
        return prediction, 1000.0 * (self._clock.monotonic() - start_s)

    def _put_out(self, camera: Camera, judged: JudgedFrame) -> None:
        judged = self._outputs.write(judged)
        camera.figures.add(judged.verdict, self._clock.monotonic())
        if self._left is not None:
            self._left -= 1
        self._tell(camera.decider.decide(judged))

    def _end_events_of_ended(self) -> None:
        ended = [camera for camera in self._going_on if camera.reader.is_over]
        for camera in ended:  # the others may go on for months
            self._going_on.remove(camera)
            self._end_events(camera)

    def _end_events(self, camera: Camera) -> None:
        self._tell(camera.decider.close(self._clock.now()))

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self._outputs.notify(event)

    def _close_cameras(self) -> None:
        # Where a network is gone all their threads hang, and the outputs want to be finished.
        close_together(camera.reader.close for camera in self._cameras)

    def _raise_failures(self) -> None:
        for camera in self._cameras:
            if camera.reader.error is not None:
                raise camera.reader.error


def _may_come(camera: Camera) -> bool:
    # One that is lost is not waited for, batch after batch.
    return camera.is_live and camera.reader.state is StreamState.RUNNING


def _waited_ms(prepared: Prepared, now_s: float) -> float:
    """How long a frame lay there, what it took to prepare it left out."""
    return max(0.0, 1000.0 * (now_s - prepared.captured.taken_s) - prepared.preprocess_ms)
