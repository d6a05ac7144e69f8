"""JSON lines of frames, events and states."""

from __future__ import annotations

import io
import json

import pytest

from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.event import EventKind, Phase
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.outputs.documents import event_document, state_document, verdict_document
from patchline.runtime.outputs.jsonl import JsonLines

from .given import event, frame, state


def test_an_event_in_full() -> None:
    document = event_document(event(0xAB, phase=Phase.ENDED))
    assert next(iter(document)) == "type"
    assert document == {
        "type": "event",
        "message_id": f"{0xAB:032x}-ended",
        "id": f"{0xAB:032x}",
        "kind": "defect",
        "phase": "ended",
        "camera": "camera1",
        "class": "lamp",
        "start": "2024-05-17T12:00:00.000+02:00",
        "end": "2024-05-17T12:00:02.000+02:00",
        "first_frame": 7,
        "last_frame": 9,
        "frames": 3,
        "peak_score": 300.5,
        "threshold": 200.0,
        "regions": [{"x": 1, "y": 2, "width": 3, "height": 4, "peak": 280.25}],
    }


def test_what_goes_on_has_no_end_and_a_drift_its_sentence() -> None:
    document = event_document(event(kind=EventKind.DRIFT, detail="scores are higher", peak=frame()))
    assert document["end"] is None
    assert (document["kind"], document["detail"]) == ("drift", "scores are higher")
    json.dumps(document)  # the peak's picture is not in it


def test_a_state_with_and_without_its_reason() -> None:
    assert state_document(state(StreamState.STALLED, camera="left", detail="no frame for 5 s")) == {
        "type": "state",
        "time": "2024-05-17T12:00:00.000+02:00",
        "camera": "left",
        "state": "stalled",
        "detail": "no frame for 5 s",
    }
    assert "detail" not in state_document(state())


def test_a_frame_names_its_camera() -> None:
    document = verdict_document(frame(camera="left").verdict)
    assert next(iter(document)) == "type"
    assert (document["type"], document["camera"]) == ("frame", "left")


@pytest.mark.parametrize(
    ("kinds", "types"),
    [
        (("frame",), ["frame"]),
        (("event",), ["event"]),
        (("event", "state"), ["state", "event"]),
        (("frame", "event", "state"), ["state", "frame", "event"]),
    ],
)
def test_only_the_lines_that_are_asked_for_are_written(
    kinds: tuple[str, ...], types: list[str]
) -> None:
    file = io.StringIO()
    lines = JsonLines(file, kinds=kinds)
    lines.notify(state())
    lines.write(frame())
    lines.notify(event())
    lines.close()
    assert [json.loads(line)["type"] for line in file.getvalue().splitlines()] == types
    assert lines.ignores_frames == ("frame" not in kinds)


@pytest.mark.parametrize("kinds", [(), ("frame", "picture")])
def test_other_kinds_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="expected some of"):
        JsonLines(io.StringIO(), kinds=kinds)
