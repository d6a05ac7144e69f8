"""Events of one camera: chains of anomalous frames, their peaks, and one drift in place of many."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.decisions.decider import Decider, random_id
from patchline.runtime.decisions.drift import Drift
from patchline.runtime.decisions.event import Event, EventKind, Phase, Region
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.verdict import JudgedFrame, StageTimes, Verdict

THRESHOLD = 2.0
NOON = datetime(2024, 5, 17, 12, 0, tzinfo=timezone.utc)
LATER = NOON + timedelta(hours=1)
STARTED, ENDED = Phase.STARTED, Phase.ENDED


def frame(score: float, index: int = 0, class_name: str = "lamp") -> JudgedFrame:
    """A frame whose map is as high as its score at the cell that its index names."""
    anomaly_map = np.zeros((32, 32), np.float32)
    anomaly_map[index % 32, 5] = score
    time = NOON + timedelta(seconds=index)
    captured = CapturedFrame(np.zeros((64, 96, 3), np.uint8), index, time, 1.0)
    verdict = Verdict(
        class_name, index, "a fake", None, time, score, THRESHOLD, StageTimes(1, 1, 1, 1), "left"
    )
    return JudgedFrame(verdict, captured, anomaly_map, anomaly_map / 2, THRESHOLD)


def decider(trigger: str = "1/1", drift: Drift | None = None) -> Decider:
    count = itertools.count(1)
    made = Decider(
        "left",
        trigger=Trigger.parse(trigger),
        drift=drift,
        make_id=lambda: f"{next(count):032x}",
    )
    assert made.trigger == Trigger.parse(trigger)
    return made


def decide(under_test: Decider, scores: Iterable[float], start: int = 0) -> list[Event]:
    return [
        event
        for index, score in enumerate(scores, start)
        for event in under_test.decide(frame(score, index))
    ]


def told(events: Sequence[Event]) -> list[tuple[EventKind, Phase, int, int]]:
    return [(e.kind, e.phase, e.first_frame, e.last_frame) for e in events]


def test_an_event_has_all_that_is_known_of_it() -> None:
    under_test = decider("3/5")
    started, ended = decide(under_test, [0, 3, 0, 7, 5, 1, 4, 0, 0, 0, 0, 0, 0])
    assert started.frames == 3
    expected = Event(
        id=started.id,
        kind=EventKind.DEFECT,
        phase=ENDED,
        camera="left",
        class_name="lamp",
        start=NOON + timedelta(seconds=1),
        end=NOON + timedelta(seconds=6),
        first_frame=1,
        last_frame=6,
        frames=4,
        peak_score=7.0,
        threshold=THRESHOLD,
        regions=(Region(15, 6, 3, 2, 7.0),),
        detail="",
    )
    assert ended == expected
    assert ended.message_id == f"{started.id}-ended"
    assert ended.peak is not None
    assert ended.peak.verdict.frame == 3
    assert started == replace(expected, phase=STARTED, end=None, last_frame=4, frames=3)
    assert started.peak is ended.peak


def test_each_event_has_an_id_of_its_own() -> None:
    events = decide(decider(), [3, 0, 3, 0])
    assert [e.phase for e in events] == [STARTED, ENDED, STARTED, ENDED]
    assert events[0].id == events[1].id != events[2].id == events[3].id
    assert len(random_id()) == 32
    assert int(random_id(), 16) != int(random_id(), 16)


def test_too_few_anomalous_frames_are_no_event() -> None:
    under_test = decider("3/5")
    assert decide(under_test, [3, 0, 0, 3, 0, 0, 3, 0, 0, 0, 0, 0, 3]) == []
    assert under_test.close(LATER) == []


def slow_events(anomalous: Sequence[bool], trigger: Trigger) -> list[tuple[int, int, int]]:
    """First and last frame and count of each chain that meets the trigger, cut out as a whole."""
    chains: list[list[int]] = []
    for at in (at for at, is_anomalous in enumerate(anomalous) if is_anomalous):
        if chains and at - chains[-1][-1] <= trigger.window:
            chains[-1].append(at)
        else:
            chains.append([at])
    return [
        (chain[0], chain[-1], len(chain))
        for chain in chains
        if any(
            sum(first <= at < first + trigger.window for at in chain) >= trigger.needed
            for first in chain
        )
    ]


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_events_are_the_chains_that_meet_the_trigger(
    anomalous: list[bool], needed: int, window: int
) -> None:
    trigger = Trigger(min(needed, window), window)
    under_test = decider(str(trigger))
    scores = [3.0 + at % 7 if is_anomalous else 1.0 for at, is_anomalous in enumerate(anomalous)]
    events = [*decide(under_test, scores), *under_test.close(LATER)]
    ended = [event for event in events if event.phase is ENDED]
    found = [(event.first_frame, event.last_frame, event.frames) for event in ended]
    assert found == slow_events(anomalous, trigger)
    for event in ended:
        inside = scores[event.first_frame : event.last_frame + 1]
        assert event.peak_score == max(inside)
        assert event.peak is not None
        assert event.peak.verdict.frame == event.first_frame + inside.index(max(inside))
        assert event.end == NOON + timedelta(seconds=event.last_frame)
    assert [event.phase for event in events] == [STARTED, ENDED] * len(ended)


def test_a_gap_in_the_frames_neither_ends_nor_starts_anything() -> None:
    under_test = decider("2/3")
    assert under_test.decide(frame(3, 10)) == []
    (started,) = under_test.decide(frame(3, 5000))
    assert (started.first_frame, started.last_frame, started.frames) == (10, 5000, 2)


def test_the_end_of_the_camera_ends_what_goes_on_once() -> None:
    under_test = decider()
    decide(under_test, [3, 4])
    (ended,) = under_test.close(LATER)
    assert (ended.phase, ended.last_frame) == (ENDED, 1)
    assert ended.end == NOON + timedelta(seconds=1)  # not LATER: of its last anomalous frame
    assert under_test.close(LATER) == []


def test_another_trigger_holds_from_the_next_frame_on() -> None:
    under_test = decider("3/5")
    assert decide(under_test, [3, 3, 0]) == []
    under_test.set_trigger(Trigger(2, 5))
    assert under_test.trigger == Trigger(2, 5)
    assert told(decide(under_test, [0], 3)) == [(EventKind.DEFECT, STARTED, 0, 1)]
    under_test.set_trigger(Trigger(1, 1))
    assert told(decide(under_test, [0], 4)) == [(EventKind.DEFECT, ENDED, 0, 1)]


def test_a_shorter_window_cuts_off_what_was_before() -> None:
    under_test = decider("3/9")
    assert decide(under_test, [9, 0, 0, 0]) == []
    under_test.set_trigger(Trigger(1, 2))
    (started,) = decide(under_test, [3], 4)
    assert (started.first_frame, started.frames, started.peak_score) == (4, 1, 3)
    assert decide(under_test, [0, 0], 5)[0].phase is ENDED
    under_test.set_trigger(Trigger(1, 9))
    assert decide(under_test, [0], 7) == []  # those frames have been told of


def test_another_product_ends_a_defect() -> None:
    under_test = decider("2/2")
    decide(under_test, [3, 3])
    (ended,) = under_test.decide(frame(5, 2, "other"))
    assert (ended.phase, ended.class_name, ended.peak_score) == (ENDED, "lamp", 3)
    (started,) = under_test.decide(frame(4, 3, "other"))
    assert (started.class_name, started.first_frame, started.frames) == ("other", 2, 2)


# --- drift -----------------------------------------------------------------------------------

NORMAL = np.linspace(0.5, 1.5, 40).tolist()
WINDOW = 100


def watched(trigger: str = "1/1") -> Decider:
    return decider(trigger, Drift(NORMAL, WINDOW))


def good(count: int) -> list[float]:
    return [float(score) for score in np.random.default_rng(count).uniform(0.5, 1.5, count)]


def test_a_drift_is_one_event_and_not_a_flood() -> None:
    under_test = watched()
    assert decide(under_test, good(100)) == []
    flickering = [3.0, 1.9] * 100  # anomalous every other frame, and always above normal
    events = decide(under_test, flickering, 100)
    (started,) = (event for event in events if event.kind is EventKind.DRIFT)
    start = started.first_frame
    assert 170 <= start <= 190  # about four fifths of the window
    assert (started.phase, started.last_frame) == (STARTED, start)
    assert under_test.is_drifting
    defects = [event for event in events if event.kind is EventKind.DEFECT]
    assert all(event.first_frame < start for event in defects)
    assert len(defects) == 2 * len({event.id for event in defects})  # each was ended
    assert "higher than" in started.detail
    (ended,) = [e for e in decide(under_test, good(120), 300) if e.kind is EventKind.DRIFT]
    assert (ended.phase, ended.id, ended.first_frame) == (ENDED, started.id, start)
    assert ended.frames == sum(score >= THRESHOLD for score in flickering[start - 100 :])
    assert ended.last_frame < 420
    assert ended.end == NOON + timedelta(seconds=ended.last_frame)
    assert "are back" in ended.detail
    assert not under_test.is_drifting


def test_no_defect_starts_while_a_drift_goes_on_and_one_does_after_it() -> None:
    under_test = watched("2/3")
    decide(under_test, [1.9] * WINDOW)
    assert under_test.is_drifting
    assert decide(under_test, [3, 3, 3, 1.9, 1.9, 1.9, 3, 3], WINDOW) == []
    events = decide(under_test, good(120), WINDOW + 8)
    assert told(events)[0][:2] == (EventKind.DRIFT, ENDED)
    assert told(decide(under_test, [3, 3], 300)) == [(EventKind.DEFECT, STARTED, 300, 301)]


def test_frames_of_a_drift_count_for_no_defect_after_it() -> None:
    under_test = watched("2/200")
    decide(under_test, [1.9] * WINDOW)
    assert decide(under_test, [3.0], WINDOW) == []
    events = decide(under_test, good(120), WINDOW + 1)
    assert [event.kind for event in events] == [EventKind.DRIFT]
    assert decide(under_test, [3.0], 221) == []  # within 200 frames of the other one


def test_an_open_defect_is_ended_as_usual_in_a_drift() -> None:
    under_test = watched()
    events = decide(under_test, [3.0] * 110)
    assert told(events) == [
        (EventKind.DEFECT, STARTED, 0, 0),
        (EventKind.DRIFT, STARTED, WINDOW - 1, WINDOW - 1),
    ]
    assert told(decide(under_test, [1.9, 3.0, 1.9], 110)) == [(EventKind.DEFECT, ENDED, 0, 109)]


def test_a_drift_downwards_has_no_anomalous_frame() -> None:
    under_test = watched()
    (started,) = decide(under_test, [0.1] * 130)
    assert (started.kind, started.frames, started.regions) == (EventKind.DRIFT, 0, ())
    assert "lower than" in started.detail


def test_the_end_of_the_camera_ends_a_drift() -> None:
    under_test = watched()
    decide(under_test, [3.0] * 110)
    defect, drift = under_test.close(LATER)
    assert (defect.kind, drift.kind) == (EventKind.DEFECT, EventKind.DRIFT)
    assert (drift.phase, drift.end, drift.last_frame) == (ENDED, LATER, 109)
    assert "camera has ended" in drift.detail
    assert not under_test.is_drifting
    assert under_test.close(LATER) == []


@pytest.mark.parametrize("other", [None, Drift([5.0] * 20, WINDOW)])
def test_other_normal_scores_end_what_goes_on_and_begin_anew(other: Drift | None) -> None:
    under_test = watched("2/2")
    decide(under_test, [3.0] * 110)
    under_test.set_drift(other)
    assert under_test.is_drifting  # up to the next frame
    ended = under_test.decide(frame(3.0, 110))
    assert told(ended) == [(EventKind.DEFECT, ENDED, 0, 109), (EventKind.DRIFT, ENDED, 99, 109)]
    assert "another product" in ended[1].detail
    (started,) = under_test.decide(frame(3.0, 111))
    assert started.first_frame == 110
    later = decide(under_test, [3.0] * 110, 112)
    assert [event.kind for event in later] == ([EventKind.DRIFT] if other else [])


def test_only_the_peaks_are_kept() -> None:
    under_test = decider("500/1000")
    kept: list[weakref.ref[Any]] = []
    for index in range(300):
        judged = frame(3.0 + index % 10, index)
        kept.append(weakref.ref(judged.captured))
        under_test.decide(judged)
        del judged
    gc.collect()
    assert [at for at, reference in enumerate(kept) if reference() is not None] == [9]
