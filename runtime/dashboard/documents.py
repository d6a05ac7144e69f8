"""What the page is told, as JSON types."""

from __future__ import annotations

import json
import math
from typing import Any

from patchline.runtime.dashboard.event_log import LoggedEvent
from patchline.runtime.dashboard.live import LivePicture
from patchline.runtime.dashboard.pictures import PictureKind
from patchline.runtime.dashboard.scores import ScorePoint
from patchline.runtime.line.controls import CameraView
from patchline.runtime.verdict import Verdict


def camera_document(view: CameraView) -> dict[str, Any]:
    """A camera as it is now."""
    return {
        "name": view.name,
        "source": view.source,
        "class": view.class_name,
        "state": view.state.value,
        "detail": view.detail,
        "threshold": _finite(view.threshold),
        "own_threshold": _finite(view.own_threshold),
        "trigger": str(view.trigger),
        "frames": view.frames,
        "anomalous": view.anomalous,
        "dropped": view.dropped,
        "fps": _finite(view.fps),
        "p50_ms": _finite(view.p50_ms),
        "p95_ms": _finite(view.p95_ms),
        "p99_ms": _finite(view.p99_ms),
        "is_drifting": view.is_drifting,
    }


def verdict_document(verdict: Verdict | None) -> dict[str, Any] | None:
    """The newest verdict; the score is not rounded, as it stands beside its threshold."""
    if verdict is None:
        return None
    return {
        "frame": verdict.frame,
        "time": verdict.time.isoformat(timespec="milliseconds"),
        "score": _finite(verdict.score),
        "anomalous": verdict.anomalous,
    }


def point_document(point: ScorePoint) -> list[float | int | None]:
    """A point of the chart: time, score, threshold, and 1 if it is anomalous."""
    time_s = round(point.time_s, 3)
    return [time_s, _finite(point.score), _finite(point.threshold), int(point.anomalous)]


def event_document(logged: LoggedEvent) -> dict[str, Any]:
    """An event of the list."""
    return {
        "id": logged.id,
        "kind": logged.kind,
        "camera": logged.camera,
        "class": logged.class_name,
        "start": logged.start.isoformat(timespec="milliseconds"),
        "end": None if logged.end is None else logged.end.isoformat(timespec="milliseconds"),
        "frames": logged.frames,
        "peak_score": _finite(logged.peak_score),
        "threshold": _finite(logged.threshold),
        "regions": logged.regions,
        "detail": logged.detail,
        "picture": logged.picture,
    }


def picture_message(camera: str, kind: PictureKind, picture: LivePicture) -> bytes:
    """Four bytes with the length of a JSON header, big end first, the header, the JPEG."""
    header = {"camera": camera, "kind": kind.value, "frame": picture.verdict.frame}
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + picture.jpeg


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
