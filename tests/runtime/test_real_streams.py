"""Cameras that fail as real ones do: an RTSP server that is killed, MJPEG that stalls or tears."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.capture import VideoSource
from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.source import CapturedFrame, FrameSource
from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.camera.stream import StreamSource
from patchline.runtime.camera.supervised import CameraReader
from patchline.runtime.errors import SourceError

from .mjpeg_server import CameraServer, Mode, brightness_of, is_whole
from .rtsp_server import RtspServer, needs_rtsp_server

PATIENCE_S = 90.0
CONNECTING, RUNNING, STALLED, RECONNECTING, ENDED, FAILED = StreamState

QUICK = ReconnectLimits(stall_s=0.5, lost_s=60.0, stable_s=0.2, first_delay_s=0.1, most_delay_s=0.4)
"""Short waits, and a loss that the source has to notice by itself."""

STEADY = replace(QUICK, stall_s=40.0)
"""No camera of a busy machine is so slow that it counts as stalled."""


class Line:
    """Polls a reader as a line does, until something has happened."""

    def __init__(
        self,
        open_camera: Callable[[], FrameSource],
        *,
        is_live: bool = True,
        limits: ReconnectLimits = QUICK,
    ) -> None:
        self.changes: list[StateChange] = []
        self.frames: list[CapturedFrame] = []
        self._changed = threading.Condition()
        self.reader: CameraReader[CapturedFrame] = CameraReader(
            "left",
            open_camera,
            is_live=is_live,
            changed=self._changed,
            prepare=lambda frame: frame,
            on_state=self.changes.append,
            limits=limits,
            rng=random.Random(1),
        )

    @property
    def states(self) -> list[StreamState]:
        return [change.state for change in self.changes]

    def __enter__(self) -> Line:
        self.reader.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.reader.close()

    def run_until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, (self.changes, len(self.frames))
            with self._changed:
                if not self.reader.is_ready:
                    self._changed.wait(0.02)
            frame = self.reader.poll()
            if frame is not None:
                self.frames.append(frame)

    def take(self, count: int) -> list[CapturedFrame]:
        """The next so many frames."""
        first = len(self.frames)
        self.run_until(lambda: len(self.frames) >= first + count)
        return self.frames[first:]

    def reach(self, state: StreamState) -> None:
        self.run_until(lambda: self.reader.state is state)

    def run_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.run_until(lambda: time.monotonic() >= end)

    def saw(self, *states: StreamState) -> bool:
        """Whether these came in this order; on a busy machine there may be more stalls."""
        rest = iter(self.states)
        return all(state in rest for state in states)

    def indices_rise(self) -> bool:
        indices = [frame.index for frame in self.frames]
        return indices == sorted(set(indices))


def quick_stream(uri: str, read_timeout_ms: int = 3000) -> Callable[[], FrameSource]:
    """Opens a stream that notices a silent camera soon."""
    return lambda: StreamSource(uri, open_timeout_ms=5000, read_timeout_ms=read_timeout_ms)


@needs_rtsp_server
def test_an_rtsp_camera_that_is_killed_and_comes_back_gives_frames_again() -> None:
    with RtspServer() as camera, Line(lambda: open_source(camera.uri), limits=STEADY) as line:
        line.take(10)
        assert line.states == [CONNECTING, RUNNING]
        camera.kill()
        line.reach(RECONNECTING)
        line.run_until(lambda: "attempt 2" in line.reader.detail)  # nobody is there
        camera.start()
        line.reach(RUNNING)
        line.take(10)
        assert line.states == [CONNECTING, RUNNING, RECONNECTING, RUNNING]
        assert line.reader.reopenings == 1
        assert line.indices_rise()
        assert {frame.image.shape for frame in line.frames} == {(120, 160, 3)}


@needs_rtsp_server
def test_an_rtsp_camera_that_was_off_is_waited_for() -> None:
    camera = RtspServer()
    with Line(lambda: open_source(camera.uri), limits=STEADY) as line:
        line.run_until(lambda: "attempt 2" in line.reader.detail)
        with camera:
            line.take(3)
        assert line.states == [CONNECTING, RECONNECTING, RUNNING]


@needs_rtsp_server
def test_an_rtsp_camera_that_falls_silent_is_stalled_lost_and_found_again() -> None:
    with RtspServer() as camera, Line(quick_stream(camera.uri, 1000)) as line:
        line.take(3)
        camera.pause()
        line.reach(STALLED)
        line.reach(RECONNECTING)
        camera.resume()
        line.reach(RUNNING)
        line.take(3)
        assert line.saw(CONNECTING, RUNNING, STALLED, RECONNECTING, RUNNING)


def test_an_mjpeg_camera_that_stalls_is_lost_and_found_again() -> None:
    with CameraServer() as camera, Line(quick_stream(camera.uri, 1500)) as line:
        line.take(5)
        camera.mode = Mode.STALL
        line.reach(RECONNECTING)
        camera.mode = Mode.FRAMES
        line.reach(RUNNING)
        line.take(5)
        assert line.saw(CONNECTING, RUNNING, STALLED, RECONNECTING, RUNNING)
        assert line.indices_rise()
        assert all(is_whole(frame.image) for frame in line.frames)


def test_a_short_stall_costs_no_connection() -> None:
    with CameraServer() as camera, Line(quick_stream(camera.uri, 60_000)) as line:
        line.take(5)
        camera.mode = Mode.STALL
        line.reach(STALLED)
        camera.mode = Mode.FRAMES
        line.reach(RUNNING)
        line.take(5)
        assert line.saw(CONNECTING, RUNNING, STALLED, RUNNING)
        assert RECONNECTING not in line.states
        assert camera.connections == 1


def test_a_thread_that_hangs_in_a_read_is_left_behind_and_another_goes_on() -> None:
    """FFmpeg is told to wait for a minute, so the read cannot be what ends the silence."""
    limits = ReconnectLimits(stall_s=0.5, lost_s=1.5, first_delay_s=0.1, most_delay_s=0.4)
    with CameraServer() as camera:
        with Line(quick_stream(camera.uri, 60_000), limits=limits) as line:
            line.take(5)
            camera.mode = Mode.STALL
            line.reach(RECONNECTING)
            assert "no frame came for" in line.reader.detail
            camera.mode = Mode.CLOSE  # the old connection gives no late frame, but ends
            camera.cut()
            camera.mode = Mode.FRAMES
            line.reach(RUNNING)
            line.take(5)
        assert line.indices_rise()
        assert all(is_whole(frame.image) for frame in line.frames)


@pytest.mark.parametrize("mode", [Mode.GARBAGE, Mode.NOISE, Mode.HALF, Mode.HALF_THEN_CLOSE])
def test_what_is_no_picture_never_becomes_one_and_does_not_end_the_camera(mode: Mode) -> None:
    with CameraServer() as camera, Line(quick_stream(camera.uri, 1500)) as line:
        line.take(5)
        camera.mode = mode
        line.run_for(0.5)
        camera.mode = Mode.FRAMES
        goal = camera.sent
        wanted = [brightness_of(number) for number in range(goal, goal + 5)]
        seen = len(line.frames)
        line.run_until(lambda: brightness_seen(line.frames[seen:], wanted))
        assert all(is_whole(frame.image) for frame in line.frames)
        assert line.indices_rise()
        assert FAILED not in line.states


def brightness_seen(frames: list[CapturedFrame], wanted: list[int]) -> bool:
    """Whether five frames came, one of them sent after the bad time."""
    means = [float(np.mean(frame.image)) for frame in frames]
    return len(means) >= 5 and any(abs(mean - value) < 2 for mean in means for value in wanted)


def test_an_mjpeg_camera_whose_connections_are_cut_again_and_again_goes_on() -> None:
    with CameraServer(fps=100) as camera, Line(quick_stream(camera.uri)) as line:
        for _ in range(5):
            line.take(5)
            camera.cut()
            line.reach(RECONNECTING)
            line.reach(RUNNING)
        assert line.reader.reopenings == 5
        assert line.indices_rise()
        assert all(is_whole(frame.image) for frame in line.frames)


def test_a_slow_line_gets_the_newest_picture_of_a_real_camera() -> None:
    with CameraServer(fps=100) as camera, Line(quick_stream(camera.uri)) as line:
        line.take(1)
        camera.wait_for_sent(50)  # nobody polls meanwhile
        line.take(2)
        assert line.reader.dropped > 0
        assert line.frames[1].index > 1
        assert line.reader.captured >= line.reader.dropped + len(line.frames)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_video_gives_its_readable_frames_and_then_fails(
    make_video: Callable[..., Path], kept: float
) -> None:
    path = make_video(frames=30)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with Line(lambda: VideoSource(path), is_live=False) as line:
        line.run_until(lambda: line.reader.is_over)
        indices = [frame.index for frame in line.frames]
        assert indices == list(range(len(indices)))
        assert 0 < len(indices) < 30
        for frame in line.frames:
            assert abs(float(np.mean(frame.image)) - 4 * frame.index) < 3
        assert line.states == [CONNECTING, RUNNING, FAILED]
        assert isinstance(line.reader.error, SourceError)
        assert "damaged or cut short" in line.reader.detail


def test_a_whole_video_ends(make_video: Callable[..., Path]) -> None:
    path = make_video(frames=30)
    with Line(lambda: open_source(str(path)), is_live=False) as line:
        line.run_until(lambda: line.reader.is_over)
        assert [frame.index for frame in line.frames] == list(range(30))
        assert line.states == [CONNECTING, RUNNING, ENDED]
