"""What the dashboard keeps of a line, and what it costs."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import cv2
import numpy as np
import pytest

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.dashboard import event_log, live, scores
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.dashboard.pictures import LARGEST_PX, PictureKind, event_jpeg, live_jpeg
from patchline.runtime.dashboard.scores import ScorePoint, ScoreRing

from ..fakes import NOON, FakeClock, gray, judged_frame
from .conftest import until
from .fake_line import Part, defect_event, drift_event, judged

HEAT, PICTURE, INFLUENCE = PictureKind.HEAT, PictureKind.PICTURE, PictureKind.INFLUENCE


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dashboard-pictures"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[PictureKind]:
    """The kinds that were drawn, each time."""
    kinds: list[PictureKind] = []

    def counted(frame, kind):  # type: ignore[no-untyped-def]
        kinds.append(kind)
        return live_jpeg(frame, kind)

    monkeypatch.setattr(live, "live_jpeg", counted)
    return kinds


class TestCost:
    def test_nobody_looking_draws_nothing_and_starts_no_thread(
        self, drawn: list[PictureKind], good_part: Part
    ) -> None:
        view, before = LiveView(), drawing_threads()
        for index in range(300):
            view.write(judged(good_part, "top", index))
        assert drawn == []
        assert drawing_threads() == before
        view.close()

    def test_three_viewers_cost_one_picture_per_frame(
        self, drawn: list[PictureKind], good_part: Part
    ) -> None:
        view = LiveView(clock=FakeClock())
        view._work = lambda: None  # type: ignore[method-assign]  # drawn by hand
        for viewer in "abc":
            view.look(viewer, HEAT)
        for index in range(4):
            view.write(judged(good_part, "top", index))
            view.draw()
            view.draw()
        assert drawn == [HEAT] * 4
        assert view.pictures_drawn == 4
        newest = view.picture("top", HEAT)
        assert newest is not None
        assert (newest.number, newest.verdict.frame) == (4, 3)

    def test_only_the_kinds_that_somebody_wants(
        self, drawn: list[PictureKind], good_part: Part
    ) -> None:
        view = LiveView(clock=FakeClock())
        view._work = lambda: None  # type: ignore[method-assign]
        view.look("a", HEAT)
        view.look("b", INFLUENCE)
        view.look("c", None)
        view.write(judged(good_part, "top", 0))
        view.draw()
        assert sorted(drawn) == [HEAT, INFLUENCE]
        view.leave("a")
        assert view.picture("top", HEAT) is None
        assert view.picture("top", INFLUENCE) is not None
        view.write(judged(good_part, "top", 1))
        view.draw()
        assert sorted(drawn) == [HEAT, INFLUENCE, INFLUENCE]

    def test_its_thread_draws_while_somebody_looks_and_not_after(self, good_part: Part) -> None:
        view = LiveView()
        view.write(judged(good_part, "top", 0))
        view.look("a", PICTURE)
        until(lambda: view.picture("top", PICTURE))
        view.leave("a")
        until(lambda: not view._is_watched())
        count = view.pictures_drawn
        for index in range(50):
            view.write(judged(good_part, "top", index))
        assert view.pictures_drawn == count
        view.close()
        view.close()
        assert drawing_threads() == []
        view.look("a", PICTURE)  # too late, and harmless
        assert drawing_threads() == []

    def test_a_frame_that_cannot_be_drawn_is_said_once(
        self, caplog: pytest.LogCaptureFixture, good_part: Part
    ) -> None:
        view = LiveView(clock=FakeClock())
        view._work = lambda: None  # type: ignore[method-assign]
        view.look("a", HEAT)
        odd = judged_frame(np.zeros((8, 8, 7), np.uint8))
        for _ in range(3):
            view.write(replace(odd))
            view.draw()
        assert caplog.text.count("cannot draw the frames of camera1") == 1
        view.write(judged(good_part, "top", 0))
        view.draw()
        assert view.picture("top", HEAT) is not None


class TestPictures:
    @pytest.mark.parametrize("kind", PictureKind)
    @pytest.mark.parametrize("shape", [(2160, 3840, 3), (1200, 1600), (3000, 40, 3), (40, 50, 4)])
    def test_they_fit_a_page(self, kind: PictureKind, shape: tuple[int, ...]) -> None:
        frame = judged_frame(np.full(shape, 90, np.uint8))
        picture = cv2.imdecode(np.frombuffer(live_jpeg(frame, kind), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        height, width = picture.shape[:2]
        assert max(height, width) == min(LARGEST_PX, max(shape[:2]))
        assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)

    def test_the_kinds_differ_where_the_maps_say_so(self, bad_part: Part) -> None:
        frame = judged(bad_part, "top", 0)
        plain, heat, influence = (
            cv2.imdecode(np.frombuffer(live_jpeg(frame, kind), np.uint8), 1).astype(int)
            for kind in (PICTURE, HEAT, INFLUENCE)
        )
        inside = cv2.resize(bad_part.anomaly_map, (640, 480)) > 27.5
        inside = cv2.dilate(inside.astype(np.uint8), np.ones((33, 33))) > 0
        change = np.abs(heat - plain).max(axis=2)
        assert change[inside].max() > 60
        assert np.percentile(change[~inside], 99) < 12
        grayness = np.abs(influence - influence.mean(axis=2, keepdims=True)).max(axis=2)
        assert grayness[cv2.resize(bad_part.influence_map, (640, 480)) < 0.01].mean() < 8
        assert grayness[inside].max() > 60

    def test_the_frame_itself_is_not_touched(self, bad_part: Part) -> None:
        frame = judged(bad_part, "top", 0)
        before = frame.captured.image.copy()
        for kind in PictureKind:
            live_jpeg(frame, kind)
        event_jpeg(frame)
        assert np.array_equal(frame.captured.image, before)


class TestScores:
    def test_points_come_once_and_in_order(self) -> None:
        ring = ScoreRing()
        for number in range(10):
            ring.add(ScorePoint(float(number), number, 5.0, number >= 5))
        assert [point.score for point in ring.since(0, 9.0)] == list(range(9))
        assert ring.since(ring.count, 9.0) == []
        assert [point.score for point in ring.since(ring.count, 9.5)] == [9]
        assert ring.count == 10

    def test_they_are_bounded(self) -> None:
        ring = ScoreRing()
        for number in range(3 * scores.CAPACITY):
            ring.add(ScorePoint(float(number), number, 5.0, False))
        points = ring.since(0, 1e9)
        assert len(points) == scores.CAPACITY
        assert points[-1].score == 3 * scores.CAPACITY - 1

    def test_a_peak_is_not_lost_at_any_rate(self) -> None:
        ring = ScoreRing()
        rng = np.random.default_rng(1)
        values = rng.random(5000)
        for number, value in enumerate(values):
            ring.add(ScorePoint(number / 1000, value, 0.999, value >= 0.999))
        points = ring.since(0, 1e9)
        assert len(points) == 100
        assert max(point.score for point in points) == values.max()
        assert all(point.anomalous == (point.score >= 0.999) for point in points)

    def test_of_an_unknown_camera(self) -> None:
        assert LiveView().scores_since("nowhere", 7) == ([], 0)
        assert LiveView().verdict("nowhere") is None


class TestEvents:
    def test_start_and_end_are_one_event_with_one_picture(
        self, bad_part: Part, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = []
        monkeypatch.setattr(live, "event_jpeg", lambda f: made.append(f) or event_jpeg(f))  # type: ignore[func-returns-value]
        view = LiveView()
        event = defect_event(judged(bad_part, "top", 3))
        view.notify(event)
        jpeg = until(lambda: view.event_picture(event.id))
        assert jpeg[:2] == b"\xff\xd8"
        view.notify(replace(event, end=event.start, frames=9))
        ((logged,), change) = view.events_since(0)
        assert (logged.frames, logged.end) == (9, event.start)
        assert logged.picture > 0
        assert view.events_since(change) == ([], change)
        view.close()
        assert len(made) == 1

    def test_a_higher_peak_gets_its_own_picture(self, bad_part: Part) -> None:
        view = LiveView()
        event = defect_event(judged(bad_part, "top", 3))
        view.notify(event)
        first = until(lambda: view.event_picture(event.id))
        higher = judged(bad_part, "top", 4, noise=9.0)
        view.notify(replace(event, end=NOON, peak_score=higher.verdict.score, peak=higher))
        until(lambda: view.event_picture(event.id) != first)
        view.close()

    def test_they_are_bounded_in_number_and_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_log, "LARGEST_BYTES", 1000)
        log = event_log.EventLog()
        events = [defect_event(judged_frame(gray(9))) for _ in range(event_log.CAPACITY + 20)]
        for event in events:
            log.add(event)
            identity, _ = log.take_waiting() or ("", None)
            assert identity == event.id
            log.put_picture(identity, b"x" * 300)
        assert len(log.since(0)) == event_log.CAPACITY
        assert [bool(log.picture(event.id)) for event in events[-5:]] == [False, False] + [True] * 3
        assert [logged.picture > 0 for logged in log.since(0)[-5:]] == [False, False] + [True] * 3
        log.put_picture(events[0].id, b"x")  # it was forgotten meanwhile
        assert log.picture(events[0].id) is None

    def test_a_flood_keeps_few_whole_frames(self) -> None:
        log = event_log.EventLog()
        for _ in range(50):
            log.add(defect_event(judged_frame(gray(9))))
        waiting = 0
        while log.take_waiting() is not None:
            waiting += 1
        assert waiting == event_log.WAITING_PICTURES

    def test_drift_has_its_sentence_and_no_picture(self) -> None:
        view = LiveView()
        view.notify(drift_event())
        ((logged,), _) = view.events_since(0)
        assert logged.kind == "drift"
        assert "18.2 to 24.9" in logged.detail
        assert logged.picture == 0
        view.close()

    def test_a_lost_camera_is_an_event_until_it_is_back(self) -> None:
        view = LiveView()
        states = [
            (StreamState.CONNECTING, ""),
            (StreamState.RUNNING, ""),
            (StreamState.STALLED, "no frame for 5 s"),
            (StreamState.RECONNECTING, "next attempt in 1 s"),
            (StreamState.RUNNING, ""),
            (StreamState.RECONNECTING, "gone again"),
        ]
        for second, (state, detail) in enumerate(states):
            view.notify(StateChange("top", state, NOON + timedelta(seconds=second), detail))
        logged = view.events_since(0)[0]
        assert [(event.kind, event.detail) for event in logged] == [
            ("camera", "next attempt in 1 s"),
            ("camera", "gone again"),
        ]
        assert logged[0].end == NOON + timedelta(seconds=4)
        assert logged[1].end is None
