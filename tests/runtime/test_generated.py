"""``test://``: parameters, pace and repeatability."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from patchline.runtime.camera.generated import Pattern, PatternSource, parse_pattern
from patchline.runtime.camera.open import open_source
from patchline.runtime.errors import ConfigurationError

from .fakes import FakeClock

SMALL = "width=96&height=64"


def test_all_parameters_are_optional() -> None:
    assert parse_pattern("test://") == Pattern()
    every = "test://?frames=7&fps=12.5&width=64&height=96&defect_every=3&seed=4"
    assert parse_pattern(every) == Pattern(7, 12.5, 64, 96, 3, 4)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?speed=3", "unknown parameter 'speed', expected frames, fps"),
        ("?frames=ten", "frames is 'ten', expected a whole number"),
        ("?frames=1.5", "frames is '1.5', expected a whole number"),
        ("?frames=", "frames is '', expected a whole number"),
        ("?fps=fast", "fps is 'fast', expected a number"),
        ("?fps=nan", "fps is nan, expected 0 to 1000"),
        ("?fps=-1", "fps is -1.0"),
        ("?width=0", "width is 0, expected 64 to 4096 pixels"),
        ("?height=100000", "height is 100000"),
        ("?defect_every=-1", "defect_every is -1"),
        ("?seed=-1", "seed is -1"),
        ("?seed=1&seed=2", "seed is given twice"),
        ("host/path?seed=1", "expected test://"),
    ],
)
def test_a_wrong_parameter_is_named(query: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        parse_pattern(f"test://{query}")


def test_frames_are_of_the_size_and_number_asked_for() -> None:
    source = open_source(f"test://?frames=5&fps=0&{SMALL}")
    assert (source.is_live, source.fps) == (False, None)
    frames = list(source.frames(threading.Event()))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}


def test_the_same_seed_gives_the_same_frames_and_another_gives_others() -> None:
    def first(seed: int) -> np.ndarray:
        source = open_source(f"test://?frames=1&fps=0&seed={seed}&{SMALL}")
        return next(source.frames(threading.Event())).image

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))


def test_every_so_many_frames_one_has_a_defect() -> None:
    source = PatternSource(f"test://?frames=9&fps=0&defect_every=3&{SMALL}")
    good, _ = source._parts
    frames = source.frames(threading.Event())
    is_good = [any(np.array_equal(frame.image, part) for part in good) for frame in frames]
    assert is_good == [True, True, False] * 3


def test_no_defects_when_asked_for_none() -> None:
    source = PatternSource(f"test://?frames=30&fps=0&defect_every=0&{SMALL}")
    good, _ = source._parts
    for frame in source.frames(threading.Event()):
        assert any(np.array_equal(frame.image, part) for part in good)


def test_a_frame_that_is_drawn_on_does_not_change_the_next_round() -> None:
    source = PatternSource(f"test://?frames=9&fps=0&defect_every=0&{SMALL}")
    frames = source.frames(threading.Event())
    first = next(frames)
    expected = first.image.copy()
    first.image[:] = 0
    np.testing.assert_array_equal(list(frames)[7].image, expected)


def test_a_live_pattern_keeps_its_pace_by_the_clock() -> None:
    clock = FakeClock()
    source = open_source(f"test://?frames=5&fps=10&{SMALL}", clock=clock)
    assert (source.is_live, source.fps) == (True, 10.0)
    list(source.frames(threading.Event()))
    assert clock.time_s == pytest.approx(0.4)  # the first frame is there at once
    assert clock.waits_s == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.1])


def test_a_live_pattern_makes_up_for_a_late_frame() -> None:
    clock = FakeClock()
    frames = open_source(f"test://?frames=5&fps=10&{SMALL}", clock=clock).frames(threading.Event())
    next(frames)
    clock.time_s += 0.25
    next(frames)
    assert clock.waits_s[-1] < 0


def test_a_pattern_without_frames_goes_on_until_it_is_stopped() -> None:
    stop = threading.Event()
    frames = open_source(f"test://?fps=0&{SMALL}").frames(stop)
    assert [next(frames).index for _ in range(100)][-1] == 99
    stop.set()
    assert list(frames) == []
