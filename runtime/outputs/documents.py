"""Frames, events and states as JSON types: what log lines, MQTT messages and webhooks hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from patchline.runtime.camera.states import StateChange
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.verdict import StageTimes, Verdict

KINDS = ("frame", "event", "state")
"""The first field of each document, ``type``."""


def check_kinds(kinds: tuple[str, ...]) -> frozenset[str]:
    """The kinds of documents that are asked for.

    Raises:
        ConfigurationError: none, or one that is not in :data:`KINDS`.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ConfigurationError(f"kinds of lines are {kinds}, expected some of {KINDS}")
    return frozenset(kinds)


def to_json(document: dict[str, Any]) -> str:
    """A document as one line without its end.

    Raises:
        ValueError: a number in it is not finite.
    """
    return json.dumps(document, allow_nan=False)


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict; ``file`` is there for pictures only."""
    file = {} if verdict.file is None else {"file": verdict.file}
    return {
        "type": "frame",
        "time": verdict.time.isoformat(timespec="milliseconds"),
        "camera": verdict.camera,
        "class": verdict.class_name,
        "source": verdict.source,
        "frame": verdict.frame,
        **file,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "anomalous": verdict.anomalous,
        "ms": _milliseconds(verdict.times),
    }


def event_document(event: Event) -> dict[str, Any]:
    """An event; ``end`` is null while it goes on, ``detail`` is there for a drift."""
    end = None if event.end is None else event.end.isoformat(timespec="milliseconds")
    return {
        "type": "event",
        "message_id": event.message_id,
        "id": event.id,
        "kind": event.kind.value,
        "phase": event.phase.value,
        "camera": event.camera,
        "class": event.class_name,
        "start": event.start.isoformat(timespec="milliseconds"),
        "end": end,
        "first_frame": event.first_frame,
        "last_frame": event.last_frame,
        "frames": event.frames,
        "peak_score": event.peak_score,
        "threshold": event.threshold,
        "regions": [asdict(region) for region in event.regions],
        **({"detail": event.detail} if event.detail else {}),
    }


def state_document(change: StateChange) -> dict[str, Any]:
    """A camera's new state; ``detail`` is there where there is one."""
    return {
        "type": "state",
        "time": change.time.isoformat(timespec="milliseconds"),
        "camera": change.camera,
        "state": change.state.value,
        **({"detail": change.detail} if change.detail else {}),
    }


def notice_document(notice: Notice) -> dict[str, Any]:
    """An event or a state."""
    return event_document(notice) if isinstance(notice, Event) else state_document(notice)


def _milliseconds(times: StageTimes) -> dict[str, float]:
    stages = {
        "read": times.read_ms,
        "wait": times.wait_ms,
        "preprocess": times.preprocess_ms,
        "infer": times.infer_ms,
        "output": times.output_ms,
        "total": times.total_ms,
    }
    return {name: round(value, 3) for name, value in stages.items()}
