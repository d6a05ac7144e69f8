"""What ``run-camera`` tells a person: the head, what happens to cameras, the figures at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.cli.command import print_warning, stderr_console

if TYPE_CHECKING:
    from rich.table import Table

    from patchline.runtime.contract import Manifest
    from patchline.runtime.engine import Engine
    from patchline.runtime.line.camera import Camera
    from patchline.runtime.line.fan_out import FanOut

_SIDE_BY_SIDE = 4  # cameras; the journal and most logs are 80 characters wide

_LOST = (StreamState.STALLED, StreamState.RECONNECTING)


class Announcer:
    """Tells people and outputs of the cameras' states; from any thread.

    Attributes:
        outputs: told of each change, once there are any.
        is_line: whether there are several cameras: of a single one the error is told at the end.
    """

    def __init__(self) -> None:
        self.outputs: FanOut | None = None
        self.is_line = False
        self._before: dict[str, StreamState] = {}

    def announce(self, change: StateChange) -> None:
        """Print what a person should know, and pass it on."""
        before = self._before.get(change.camera)
        self._before[change.camera] = change.state
        if change.state in _LOST and change.detail:
            print_warning(_named(change))
        elif change.state is StreamState.RUNNING and before in _LOST:
            line = f"{change.camera}: frames come again"
            stderr_console().print(line, markup=False, soft_wrap=True)
        elif change.state is StreamState.FAILED and self.is_line:
            print_warning(f"{change.camera} gives no more frames: {change.detail}")
        elif change.state is StreamState.RUNNING and change.detail:
            print_warning(_named(change))
        if self.outputs is not None:
            self.outputs.notify(change)


def _named(change: StateChange) -> str:
    # What is said of one frame begins with the camera already.
    is_named = change.detail.startswith(f"{change.camera}, ")
    return change.detail if is_named else f"{change.camera}: {change.detail}"


def print_head(engine: Engine, cameras: Sequence[Camera]) -> None:
    """Say on stderr what judges what, by which threshold."""
    manifest = engine.manifest
    lines = [
        f"model      {manifest.class_name}: {manifest.method}, {manifest.score}, "
        f"{manifest.precision}, {manifest.model_size.height} x {manifest.model_size.width} px",
        f"engine     {engine.description}",
    ]
    for camera in cameras:
        pace = "live, newest frame" if camera.is_live else "every frame"
        name = f"{camera.name}: " if len(cameras) > 1 else ""
        lines += [
            f"source     {name}{camera.source} ({pace})",
            f"threshold  {name}{_threshold(manifest, camera)}",
        ]
    for line in lines:
        stderr_console().print(line, markup=False, soft_wrap=True)


def print_bank(path: Path | None, manifest: Manifest, cameras: Sequence[Camera]) -> None:
    """Say on stderr that another memory bank judges from here on."""
    found = dict.fromkeys(_threshold(manifest, camera) for camera in cameras)
    line = f"bank       {path}: {manifest.class_name}, threshold {'; '.join(found)}"
    stderr_console().print(line, markup=False, soft_wrap=True)


def print_summary(cameras: Sequence[Camera], outputs: FanOut, elapsed_s: float) -> None:
    """Print the figures of a run on stderr."""
    for first in range(0, len(cameras), _SIDE_BY_SIDE):
        shown = cameras[first : first + _SIDE_BY_SIDE]
        table = _table(shown, elapsed_s, "Summary" if first == 0 else None)
        table.show_header = len(cameras) > 1
        stderr_console().print(table)
    for output in outputs.queued:
        lost = output.dropped_frames + output.dropped_notices
        if lost:
            line = f"{output.name}: {lost} records dropped"
            stderr_console().print(line, markup=False, soft_wrap=True)


def _table(cameras: Sequence[Camera], elapsed_s: float, title: str | None) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column()
    for camera in cameras:
        table.add_column(camera.name, justify="right")
    columns = [dict(_rows(camera, elapsed_s)) for camera in cameras]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _threshold(manifest: Manifest, camera: Camera) -> str:
    own, given = manifest.threshold, camera.rules.threshold
    if given is None:
        return f"{own.value:.6g} ({own.rule})"
    return f"{given:.6g} (set in its place; the manifest says {own.value:.6g})"


def _rows(camera: Camera, elapsed_s: float) -> Iterator[tuple[str, str]]:
    figures, reader = camera.figures, camera.reader
    yield "frames", str(figures.frames)
    yield "anomalous", str(figures.anomalous)
    yield "dropped", str(reader.dropped)
    yield "skipped unreadable", str(reader.skipped_unreadable)
    yield "refused", str(reader.refused)
    yield "reopened", str(reader.reopenings)
    yield "FPS", f"{figures.frames / elapsed_s if elapsed_s > 0 else 0.0:.1f}"
    found = figures.percentiles()
    for name, value in (("p50", found.p50_ms), ("p95", found.p95_ms), ("p99", found.p99_ms)):
        yield f"latency {name}", "-" if value is None else f"{value:.1f} ms"
