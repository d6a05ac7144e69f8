"""The first frames of a release: whether their scores have drifted, from run-camera's ``--log``."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TextIO

from patchline.runtime.bank import BANK_SUFFIX, load_bank
from patchline.runtime.contract import Manifest
from patchline.runtime.decisions.drift import Drift, why_no_drift
from patchline.runtime.errors import ManifestError
from patchline.runtime.graph import load_any_manifest

REMEMBERED = timedelta(days=1)
"""A camera that gave frames within this time before is one of the line."""


class Tail:
    """Lines that a log gets from now on, over its rotation."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, ""
        self._file: TextIO | None = self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What has come since the last call."""
        while True:
            text = self._file.read() if self._file is not None else ""
            *whole, self._rest = (self._rest + text).split("\n")
            yield from (json.loads(line) for line in whole if line)
            if self._file is not None and not self._was_rotated(self._file):
                return
            self.close()
            self._file, self._rest = self._open(), ""
            if self._file is None:
                return

    def cameras(self, classes: Collection[str], since: datetime) -> set[str]:
        """Those with a frame of one of the classes in the log, and in the file shifted last."""
        found: set[str] = set()
        for path in (self._path.with_name(f"{self._path.name}.1"), self._path):
            with (
                contextlib.suppress(FileNotFoundError),
                path.open(encoding="utf-8", errors="replace") as file,
            ):
                found |= {
                    line["camera"]
                    for line in map(_document, file)
                    if line.get("type") == "frame"
                    and line["camera"] not in found
                    and line["class"] in classes
                    and datetime.fromisoformat(line["time"]) >= since
                }
        return found

    def close(self) -> None:
        """Let the log go."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> TextIO | None:
        try:
            return self._path.open(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _was_rotated(self, file: TextIO) -> bool:
        try:
            return os.fstat(file.fileno()).st_ino != self._path.stat().st_ino
        except FileNotFoundError:
            return True


def normal_scores(release: Path) -> dict[str, Sequence[float]]:
    """Normal scores of each class that a release holds."""
    manifests = [load_bank(path).manifest for path in release.glob(f"*{BANK_SUFFIX}")]
    for path in release.glob("*.json"):
        try:
            manifest = load_any_manifest(path)
        except ManifestError:
            continue  # a record of another kind, such as a plan's
        if isinstance(manifest, Manifest):
            manifests.append(manifest)
    return {one.class_name: one.normal_scores.scores for one in manifests}


def problem_of(
    frames: Sequence[dict[str, Any]],
    normal: Sequence[float],
    *,
    watches_lower: bool,
    largest_share: float,
) -> str | None:
    """Why the frames of one camera speak against a release, as a sentence; else ``None``."""
    anomalous = sum(frame["anomalous"] for frame in frames)
    if anomalous > largest_share * len(frames):
        return f"{anomalous} of the first {len(frames)} frames are anomalous"
    if why_no_drift(len(normal)) is not None:
        return None
    drift = Drift(normal, len(frames), watches_lower=watches_lower)
    for frame in frames:
        drift.feed(frame["score"])
    return drift.detail if drift.is_drifting else None


def watch(
    tail: Tail,
    release: Path,
    say: Callable[[str], None],
    *,
    cameras: Collection[str] = (),
    count: int = 100,
    patience_s: float = 600.0,
    settle_s: float = 5.0,
    watches_lower: bool = True,
    largest_share: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> str | None:
    """Judge the first ``count`` frames of every camera.

    Args:
        cameras: of the line, by name; without any those that the log has named in a frame of the
            release's classes within :data:`REMEMBERED`.

    Returns:
        Why they speak against the release; ``None`` where nothing does.

    Raises:
        TimeoutError: too few frames came, so that nothing can be said.
    """
    normal: Mapping[str, Sequence[float]] = normal_scores(release)
    for name, scores in normal.items():
        if (reason := why_no_drift(len(scores))) is not None:
            say(f"{name}: {reason}")
    began, seen = now(), defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    wanted = set(cameras) or tail.cameras(normal, began - REMEMBERED)
    while missing := _missing(seen, wanted, count):
        if (now() - began).total_seconds() > patience_s:
            raise TimeoutError(
                f"{sum(map(len, seen.values()))} frames of {', '.join(normal)} came within "
                f"{patience_s:g} s, and {count} of each camera are needed: {missing}. It is "
                "watched again; --cameras names those to wait for"
            )
        for line in tail.lines():
            # What was under way when the model was switched was judged by the one before.
            is_late = line["type"] == "frame" and _age_s(line, began) >= settle_s
            if is_late and line["class"] in normal:
                seen[line["camera"], line["class"]].append(line)
        sleep(1.0)
    for (camera, name), frames in seen.items():
        problem = problem_of(
            frames[:count],
            normal[name],
            watches_lower=watches_lower,
            largest_share=largest_share,
        )
        if problem is not None:
            return f"camera {camera}: {problem}"
    return None


def _missing(
    seen: Mapping[tuple[str, str], Sequence[object]], wanted: Collection[str], count: int
) -> str:
    """Cameras with too few frames, as a phrase; empty where there are none."""
    counts = {f"{camera} ({name})": len(frames) for (camera, name), frames in seen.items()}
    silent = sorted(set(wanted) - {camera for camera, _ in seen})
    counts |= dict.fromkeys(silent if seen or silent else ("any camera",), 0)
    return ", ".join(f"{name} gave {found}" for name, found in counts.items() if found < count)


def _document(line: str) -> dict[str, Any]:
    """A line of the log; the one that is just being written says nothing."""
    try:
        document: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return document


def _age_s(line: dict[str, Any], began: datetime) -> float:
    return (datetime.fromisoformat(line["time"]) - began).total_seconds()
