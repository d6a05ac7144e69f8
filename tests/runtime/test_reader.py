"""Capture in a thread: which frames arrive, what becomes of errors, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from patchline.runtime.camera.reader import BufferPolicy, FrameReader
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.supervised import READ_AHEAD
from patchline.runtime.errors import SourceError

from .fakes import FakeSource, gray

PATIENCE_S = 60


class GatedSource(FakeSource):
    """Says when frame ``at`` is asked for, and then waits for permission to go on."""

    def __init__(self, count: int, at: int, *, is_live: bool) -> None:
        super().__init__([gray(1)] * count, is_live=is_live)
        self.is_reached = threading.Event()
        self.may_go_on = threading.Event()
        self._at = at

    def frames(self, stop: threading.Event) -> Iterator[CapturedFrame]:
        for frame in super().frames(stop):
            if frame.index == self._at:
                self.is_reached.set()
                assert self.may_go_on.wait(PATIENCE_S)
            yield frame


def test_the_policy_follows_the_source() -> None:
    assert BufferPolicy.of(FakeSource([], is_live=True)) is BufferPolicy.NEWEST
    assert BufferPolicy.of(FakeSource([], is_live=False)) is BufferPolicy.EVERY


def test_a_file_gives_every_frame_in_order() -> None:
    source = FakeSource([gray(1)] * 50)
    with FrameReader(source) as reader:
        assert [frame.index for frame in reader] == list(range(50))
    assert reader.dropped == 0
    assert source.is_closed.is_set()


def test_a_file_is_read_ahead_by_a_few_frames_and_no_more() -> None:
    source = GatedSource(50, at=READ_AHEAD, is_live=False)
    with FrameReader(source) as reader:
        assert source.is_reached.wait(PATIENCE_S)  # nobody has taken a frame yet
        source.may_go_on.set()
        assert [frame.index for frame in reader] == list(range(50))
    reader = FrameReader(FakeSource([gray(1)] * 50))
    with reader:
        taken = next(iter(reader))
    assert taken.index == 0
    assert len(reader._source.given) <= READ_AHEAD + 3


def test_a_live_source_keeps_only_the_newest_frame_and_counts_the_others() -> None:
    source = GatedSource(20, at=10, is_live=True)
    with FrameReader(source) as reader:
        assert source.is_reached.wait(PATIENCE_S)
        frames = iter(reader)
        assert next(frames).index == 9
        assert reader.dropped == 9
        source.may_go_on.set()
        rest = [frame.index for frame in frames]
    assert rest[-1] == 19
    assert reader.dropped + len(rest) + 1 == 20


@pytest.mark.parametrize("is_live", [True, False])
def test_an_error_arrives_after_the_frames_before_it(is_live: bool) -> None:
    source = FakeSource([gray(1)] * 5, is_live=is_live, error=SourceError("unplugged"))
    seen: list[int] = []
    with FrameReader(source) as reader, pytest.raises(SourceError, match="unplugged"):
        for frame in reader:
            seen.append(frame.index)  # noqa: PERF401 - those before the error count
    assert seen[-1] == 4
    assert source.is_closed.is_set()


def test_an_error_that_nobody_thought_of_arrives_too() -> None:
    source = FakeSource([], error=ZeroDivisionError("oh"))
    with FrameReader(source) as reader, pytest.raises(ZeroDivisionError):
        list(reader)


@pytest.mark.parametrize("is_live", [True, False])
def test_leaving_stops_an_endless_source(is_live: bool) -> None:
    source = FakeSource([gray(1)], is_live=is_live, is_endless=True)
    with FrameReader(source) as reader:
        next(iter(reader))
    assert source.is_closed.wait(PATIENCE_S)
    assert not reader._thread.is_alive()


def test_leaving_stops_a_source_that_waits_at_a_full_buffer() -> None:
    source = FakeSource([gray(1)], is_endless=True)
    with FrameReader(source):
        pass  # nobody takes a frame
    assert source.is_closed.wait(PATIENCE_S)


def test_a_stop_from_outside_ends_the_iteration() -> None:
    stop = threading.Event()
    source = FakeSource([gray(1)], is_endless=True)
    with FrameReader(source, stop) as reader:
        frames = iter(reader)
        next(frames)
        stop.set()
        assert list(frames) == []


def test_a_stop_from_outside_ends_the_wait_for_a_camera_that_is_silent() -> None:
    stop = threading.Event()
    source = GatedSource(2, at=0, is_live=True)
    with FrameReader(source, stop) as reader:
        assert source.is_reached.wait(PATIENCE_S)
        threading.Thread(target=stop.set).start()
        assert list(reader) == []
        source.may_go_on.set()
