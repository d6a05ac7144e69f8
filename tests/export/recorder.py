"""A tracker that keeps what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchline.export.tracking.base import NoTracker, Status, status_of
from patchline.export.tracking.settings import TrackSettings


class Recorder(NoTracker):
    """A tracker that keeps what it is told."""

    def __init__(self, settings: TrackSettings | None = None, run_name: str = "") -> None:
        self.settings, self.run_name = settings or TrackSettings(), run_name
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.shown: list[tuple[int, str]] = []
        self.pictures: dict[str, dict[str, Any]] = {}
        self.configured: dict[str, Any] = {}
        self.models: list[tuple[Path, dict[str, Any]]] = []
        self.results: dict[str, Any] = {}
        self.status: Status | None = None

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.logged.append((step, dict(values)))

    def images(self, name: str, pictures: Mapping[str, Any], *, step: int) -> None:
        self.shown.append((step, name))
        self.pictures[name] = dict(pictures)

    def config(self, values: Mapping[str, Any]) -> None:
        self.configured |= values

    def model(self, path: Path, *, metadata: Mapping[str, Any]) -> None:
        assert path.is_file()
        self.models.append((path, dict(metadata)))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.results |= values

    def finish(self, status: Status) -> None:
        self.status = status

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.finish(status_of(kind))

    @property
    def figures(self) -> dict[str, float]:
        """The last value of each name."""
        return {name: value for _, values in self.logged for name, value in values.items()}

    def history(self, name: str) -> list[tuple[int, float]]:
        """All values of a name by step."""
        return [(step, values[name]) for step, values in self.logged if name in values]
