"""The cameras of a running line, looked at and set from other threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.contract import Manifest
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.camera import Camera, Rules
from patchline.runtime.line.controls import CameraView
from patchline.runtime.line.overrides import Overrides


class LineControls:
    """A :class:`~patchline.runtime.line.controls.Controls`: what is configured, and what was set
    by hand in its place.

    Args:
        cameras: of the line; their rules so far are the configured ones.
        manifest: of the product that is looked for at the moment.
        overrides: what was set by hand before, and keeps what is set from here on.
        clock: for the pace.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        manifest: Callable[[], Manifest],
        overrides: Overrides,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._cameras = {camera.name: camera for camera in cameras}
        self._configured = {camera.name: camera.rules for camera in cameras}
        self._manifest, self._overrides, self._clock = manifest, overrides, clock
        self._lock = threading.Lock()
        self.apply()

    def cameras(self) -> list[CameraView]:
        """All cameras in the order of the line."""
        return [self._view(camera) for camera in self._cameras.values()]

    def set_threshold(self, camera: str, threshold: float | None) -> None:
        """Decide by another threshold; see :meth:`Controls.set_threshold`.

        Raises:
            ConfigurationError: no such camera, or no finite number.
            WriteError: it holds now, and could not be saved for the next start.
        """
        found = self._find(camera)
        if threshold is not None and not math.isfinite(threshold):
            raise ConfigurationError(f"the threshold is {threshold}, expected a finite number")
        with self._lock:
            value = self._configured[camera].threshold if threshold is None else threshold
            found.rules = replace(found.rules, threshold=value)
            own = self._own_threshold(camera)
            self._overrides.set_threshold(camera, threshold, instead_of=own)

    def set_trigger(self, camera: str, trigger: Trigger | None) -> None:
        """Debounce otherwise; see :meth:`Controls.set_trigger`.

        Raises:
            ConfigurationError: no such camera.
            WriteError: it holds now, and could not be saved for the next start.
        """
        found = self._find(camera)
        with self._lock:
            own = self._configured[camera].trigger
            self._use_trigger(found, own if trigger is None else trigger)
            self._overrides.set_trigger(camera, trigger, instead_of=own)

    def configure(self, rules: dict[str, Rules]) -> None:
        """Take other configured rules; what was set by hand in place of others is dropped."""
        with self._lock:
            self._configured.update(rules)
        self.apply()

    def apply(self) -> None:
        """Bring every camera to its configured rules, and what was set by hand for these.

        To be called when the product is another one, too: its threshold is.
        """
        with self._lock:
            for name, camera in self._cameras.items():
                rules = self._configured[name]
                by_hand = self._overrides.threshold(name, self._own_threshold(name))
                trigger = self._overrides.trigger(name, rules.trigger) or rules.trigger
                threshold = rules.threshold if by_hand is None else by_hand
                camera.rules = replace(rules, threshold=threshold, trigger=trigger)
                camera.decider.set_trigger(trigger)

    def _use_trigger(self, camera: Camera, trigger: Trigger) -> None:
        camera.rules = replace(camera.rules, trigger=trigger)
        camera.decider.set_trigger(trigger)

    def _own_threshold(self, name: str) -> float:
        configured = self._configured[name].threshold
        return self._manifest().threshold.value if configured is None else configured

    def _find(self, name: str) -> Camera:
        if name not in self._cameras:
            raise ConfigurationError(
                f"there is no camera {name!r}, expected {', '.join(self._cameras)}"
            )
        return self._cameras[name]

    def _view(self, camera: Camera) -> CameraView:
        figures, reader, rules = camera.figures, camera.reader, camera.rules
        own, latency = self._own_threshold(camera.name), figures.percentiles()
        return CameraView(
            name=camera.name,
            source=camera.source,
            class_name=self._manifest().class_name,
            state=reader.state,
            detail=reader.detail,
            threshold=own if rules.threshold is None else rules.threshold,
            own_threshold=own,
            trigger=rules.trigger,
            frames=figures.frames,
            anomalous=figures.anomalous,
            dropped=reader.dropped,
            fps=figures.fps(self._clock.monotonic()),
            p50_ms=latency.p50_ms,
            p95_ms=latency.p95_ms,
            p99_ms=latency.p99_ms,
            is_drifting=camera.decider.is_drifting,
        )
