"""N of the latest M frames, against a look at the whole history."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.decisions.debounce import Debounce
from patchline.runtime.decisions.event import Phase
from patchline.runtime.decisions.trigger import LARGEST_WINDOW, Trigger

FRAMES = st.lists(st.booleans(), max_size=80)


@st.composite
def triggers(draw: st.DrawFn) -> Trigger:
    window = draw(st.integers(1, 8))
    return Trigger(draw(st.integers(1, window)), window)


def slow_phases(frames: Sequence[bool], trigger: Trigger) -> list[Phase | None]:
    """The rule as its docstring says it, from the whole history at each frame."""
    phases: list[Phase | None] = []
    is_active = False
    for seen in range(1, len(frames) + 1):
        latest = frames[max(0, seen - trigger.window) : seen]
        phase = None
        if not is_active and sum(latest) >= trigger.needed:
            is_active, phase = True, Phase.STARTED
        elif is_active and not any(latest):
            is_active, phase = False, Phase.ENDED
        phases.append(phase)
    return phases


@given(FRAMES, triggers())
@settings(max_examples=150, deadline=None)
def test_it_is_what_a_look_at_the_whole_history_says(frames: list[bool], trigger: Trigger) -> None:
    debounce = Debounce(trigger)
    assert [debounce.feed(frame) for frame in frames] == slow_phases(frames, trigger)
    assert debounce.is_quiet == (not any(frames[-trigger.window :]))


@given(st.lists(st.tuples(triggers(), FRAMES), max_size=6))
@settings(max_examples=150, deadline=None)
def test_the_latest_frames_count_by_a_new_trigger(parts: list[tuple[Trigger, list[bool]]]) -> None:
    debounce = Debounce(Trigger())
    is_active, frames = False, [False]
    for trigger, added in parts:
        debounce.trigger = trigger
        if not is_active and not any(frames[-trigger.window :]):
            frames = []  # a chain that is over is forgotten
        for frame in added:
            frames.append(frame)
            latest = frames[-trigger.window :]
            expected = None
            if is_active and not any(latest):
                expected, is_active = Phase.ENDED, False
            elif not is_active and sum(latest) >= trigger.needed:
                expected, is_active = Phase.STARTED, True
            if not any(latest):
                frames = []
            assert debounce.feed(frame) is expected
            assert debounce.is_active == is_active


def test_three_of_five() -> None:
    debounce = Debounce(Trigger(3, 5))
    phases = [debounce.feed(frame == "x") for frame in "x.x..x.xx..x....."]
    started, ended = phases.index(Phase.STARTED), phases.index(Phase.ENDED)
    assert (started, ended) == (8, 16)
    assert phases.count(None) == len(phases) - 2


def test_each_frame_by_itself_is_an_event_of_one_of_one() -> None:
    debounce = Debounce(Trigger())
    assert [debounce.feed(frame) for frame in (True, True, False, True)] == [
        Phase.STARTED,
        None,
        Phase.ENDED,
        Phase.STARTED,
    ]


def test_a_reset_forgets_in_silence() -> None:
    debounce = Debounce(Trigger(2, 3))
    debounce.feed(True)
    debounce.reset()
    assert debounce.is_quiet
    assert debounce.feed(True) is None
    assert debounce.feed(True) is Phase.STARTED
    debounce.reset()
    assert not debounce.is_active
    assert [debounce.feed(False) for _ in range(5)] == [None] * 5


@pytest.mark.parametrize("needed", [1, 2, LARGEST_WINDOW])
def test_the_largest_window(needed: int) -> None:
    trigger = Trigger(needed, LARGEST_WINDOW)
    # A single frame, a gap of one less than the window, and more than one round of the ring.
    frames = [True, *[False] * (LARGEST_WINDOW - 2), *[True] * LARGEST_WINDOW]
    frames += [False] * (LARGEST_WINDOW + 1)
    debounce = Debounce(trigger)
    found = {at: phase for at, frame in enumerate(frames) if (phase := debounce.feed(frame))}
    last = 2 * LARGEST_WINDOW - 2
    start = {1: 0, 2: LARGEST_WINDOW - 1, LARGEST_WINDOW: last}[needed]
    assert found == {start: Phase.STARTED, last + LARGEST_WINDOW: Phase.ENDED}
