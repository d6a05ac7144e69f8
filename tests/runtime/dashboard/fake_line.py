"""A line without cameras: it feeds a live view with drawn parts, and can be looked at in a browser.

``python tests/runtime/dashboard/fake_line.py [PORT]`` serves it until Ctrl-C.
"""

from __future__ import annotations

import itertools
import secrets
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import cv2
import numpy as np

from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.camera.test_pattern import DEFECTS, draw_part
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.dashboard.server import Dashboard
from patchline.runtime.decisions.event import Event, EventKind, Phase, Region
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.controls import CameraView
from patchline.runtime.verdict import JudgedFrame, StageTimes, Verdict

OWN_THRESHOLD = 27.5
OWN_TRIGGER = Trigger(3, 5)


def camera_view(name: str = "top", **changes: Any) -> CameraView:
    view = CameraView(
        name=name,
        source="rtsp://***@10.0.0.7/stream1",
        class_name="gasket",
        state=StreamState.RUNNING,
        detail="",
        threshold=OWN_THRESHOLD,
        own_threshold=OWN_THRESHOLD,
        trigger=OWN_TRIGGER,
        frames=0,
        anomalous=0,
        dropped=0,
        fps=0.0,
        p50_ms=None,
        p95_ms=None,
        p99_ms=None,
        is_drifting=False,
    )
    return replace(view, **changes)


class FakeControls:
    """Holds the views of some cameras; ``error`` is raised by the next change."""

    def __init__(self, *names: str) -> None:
        self.lock = threading.Lock()
        self.views = {name: camera_view(name) for name in names or ("top",)}
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.looks = 0

    def reset(self) -> None:
        self.calls.clear()
        self.error = None
        with self.lock:
            self.views = {name: camera_view(name) for name in self.views}

    def cameras(self) -> list[CameraView]:
        with self.lock:
            self.looks += 1
            return list(self.views.values())

    def change(self, camera: str, **changes: Any) -> None:
        with self.lock:
            if camera not in self.views:
                raise ConfigurationError(f"there is no camera {camera!r}: {', '.join(self.views)}")
            self.views[camera] = replace(self.views[camera], **changes)

    def set_threshold(self, camera: str, threshold: float | None) -> None:
        self.change(camera, threshold=OWN_THRESHOLD if threshold is None else threshold)
        self._called("threshold", camera, threshold)

    def set_trigger(self, camera: str, trigger: Trigger | None) -> None:
        self.change(camera, trigger=trigger or OWN_TRIGGER)
        self._called("trigger", camera, trigger)

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        error, self.error = self.error, None
        if error is not None:
            raise error


@dataclass(frozen=True)
class Part:
    """A drawn part with the maps that a model might give for it."""

    image: Any
    anomaly_map: Any
    influence_map: Any
    score: float


def make_part(seed: int, defect: str | None, size: tuple[int, int] = (480, 640)) -> Part:
    image, mask = draw_part(seed, defect=defect, size=size)
    rng = np.random.default_rng(seed)
    small = cv2.resize(mask.astype(np.float32) / 255, (64, 48), interpolation=cv2.INTER_AREA)
    coarse = rng.random((6, 8), dtype=np.float32)
    hills = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
    blob = cv2.GaussianBlur(small, (0, 0), 2.0)
    blob /= max(float(blob.max()), 1e-6)
    top = 34.0 + 14 * rng.random() if defect else 0.0
    anomaly_map = (9 + 9 * hills + blob * top).astype(np.float32)
    influence = np.clip(cv2.GaussianBlur(hills, (0, 0), 1) ** 3 * 0.4 + blob, 0, 1)
    return Part(image, anomaly_map, influence.astype(np.float32), float(anomaly_map.max()))


def judged(
    part: Part, camera: str, index: int, *, threshold: float = OWN_THRESHOLD, noise: float = 0.0
) -> JudgedFrame:
    now = datetime.now().astimezone()
    times = StageTimes(read_ms=2.0, wait_ms=0.4, preprocess_ms=0.8, infer_ms=6.0)
    score = part.score + noise
    verdict = Verdict("gasket", index, "a fake", None, now, score, threshold, times, camera)
    captured = CapturedFrame(part.image, index, now, 2.0)
    return JudgedFrame(verdict, captured, part.anomaly_map, part.influence_map, threshold)


def defect_event(frame: JudgedFrame, *, identity: str = "", over: bool = False) -> Event:
    verdict = frame.verdict
    return Event(
        id=identity or secrets.token_hex(16),
        kind=EventKind.DEFECT,
        phase=Phase.ENDED if over else Phase.STARTED,
        camera=verdict.camera,
        class_name=verdict.class_name,
        start=verdict.time,
        end=verdict.time if over else None,
        first_frame=verdict.frame,
        last_frame=verdict.frame,
        frames=3,
        peak_score=verdict.score,
        threshold=verdict.threshold,
        regions=(Region(10, 10, 40, 30, 50.0),),
        peak=frame,
    )


def drift_event(camera: str = "top", *, identity: str = "", over: bool = False) -> Event:
    now = datetime.now().astimezone()
    detail = "the median of the normal scores rose from 18.2 to 24.9 within 500 frames"
    return Event(
        id=identity or secrets.token_hex(16),
        kind=EventKind.DRIFT,
        phase=Phase.ENDED if over else Phase.STARTED,
        camera=camera,
        class_name="gasket",
        start=now,
        end=now if over else None,
        first_frame=0,
        last_frame=9,
        frames=0,
        peak_score=26.0,
        threshold=OWN_THRESHOLD,
        detail=detail,
    )


@dataclass
class FakeLine:
    """Feeds a live view in a thread: parts pass, some of them defective.

    Attributes:
        live: what is fed.
        controls: whose cameras are shown.
        fps: frames per second of each camera.
        defect_every: one part of so many is defective; 0 for none.
        frames_per_part: a part is seen for so many frames.
    """

    live: LiveView
    controls: FakeControls
    fps: float = 30.0
    defect_every: int = 9
    frames_per_part: int = 20
    stop_event: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.good = [make_part(seed, None) for seed in range(6)]
        self.bad = [make_part(20 + seed, name) for seed, name in enumerate(DEFECTS)]
        self.thread = threading.Thread(target=self.run, name="fake-line", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stop_event.set()
        self.thread.join(10)

    def run(self) -> None:
        rng = np.random.default_rng(0)
        ongoing: dict[str, Event] = {}
        for index in itertools.count():
            began = time.perf_counter()
            for number, view in enumerate(self.controls.cameras()):
                if view.state is not StreamState.RUNNING:
                    continue
                self.feed(view, index + 7 * number, ongoing, float(rng.normal(0, 0.7)))
            if self.stop_event.wait(max(0.0, 1 / self.fps - (time.perf_counter() - began))):
                return

    def feed(self, view: CameraView, index: int, ongoing: dict[str, Event], noise: float) -> None:
        part_number = index // self.frames_per_part
        is_bad = self.defect_every and part_number % self.defect_every == self.defect_every - 1
        part = (self.bad if is_bad else self.good)[part_number % (4 if is_bad else 6)]
        frame = judged(part, view.name, index, threshold=view.threshold, noise=noise)
        self.live.write(frame)
        anomalous = frame.verdict.anomalous
        if anomalous and view.name not in ongoing:
            ongoing[view.name] = defect_event(frame)
            self.live.notify(ongoing[view.name])
        elif not anomalous and view.name in ongoing:
            event = ongoing.pop(view.name)
            over = replace(event, phase=Phase.ENDED, end=frame.verdict.time, frames=20)
            self.live.notify(over)
        self.controls.change(
            view.name,
            frames=view.frames + 1,
            anomalous=view.anomalous + anomalous,
            fps=self.fps + noise / 10,
            p50_ms=6.8 + noise / 20,
            p95_ms=9.1,
            p99_ms=14.25,
        )


def lose_camera(live: LiveView, controls: FakeControls, camera: str) -> None:
    detail = "rtsp://***@10.0.0.7/stream1 gives no frames any more; next attempt in 4 s"
    controls.change(camera, state=StreamState.RECONNECTING, detail=detail, fps=0.0)
    now = datetime.now().astimezone()
    live.notify(StateChange(camera, StreamState.RECONNECTING, now, detail))


def main() -> None:
    """Serve a line of two cameras until Ctrl-C."""
    live, controls = LiveView(), FakeControls("top", "side")
    line = FakeLine(live, controls)
    line.start()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    dashboard = Dashboard(live, controls, port=port)
    dashboard.start()
    sys.stdout.write(f"{dashboard.url}\n")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        dashboard.stop()
        line.stop()
        live.close()


if __name__ == "__main__":
    main()
