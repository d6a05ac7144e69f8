"""A line over fakes: cameras, engine and outputs, run to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.source import FrameSource
from patchline.runtime.camera.states import StateChange
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.decider import Decider
from patchline.runtime.decisions.drift import Drift
from patchline.runtime.engine import Engine
from patchline.runtime.line.camera import Camera, Rules
from patchline.runtime.line.fan_out import FanOut
from patchline.runtime.line.inspection import Inspection
from patchline.runtime.outputs.base import Output
from patchline.runtime.outputs.queued import QueuedOutput

from .fakes import FakeEngine, FakeSource


class InspectedLine:
    """A line whose outputs are called in its own thread, but for those that are given as queued."""

    def __init__(
        self,
        sources: Sequence[FrameSource],
        outputs: Sequence[Output] = (),
        *,
        engine: Engine | None = None,
        queued: Sequence[QueuedOutput] = (),
        rules: Rules | None = None,
        drift: Drift | None = None,
        names: Sequence[str] = ("camera1", "camera2", "camera3"),
        clock: Clock = SYSTEM_CLOCK,
        may_end: bool = True,
        limits: ReconnectLimits | None = None,
        **options: Any,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.changed = threading.Condition()
        self.states: list[StateChange] = []
        rules = rules or Rules()
        self.cameras = [
            Camera(
                name,
                source.name,
                _giving(source),
                is_live=source.is_live,
                size=self.engine.manifest.model_size,
                decider=Decider(name, trigger=rules.trigger, drift=drift),
                changed=self.changed,
                on_state=self.states.append,
                rules=rules,
                may_end=may_end,
                limits=limits,
                clock=clock,
            )
            for name, source in zip(names, sources, strict=False)
        ]
        self.outputs = FanOut(queued, outputs, clock=clock)
        self.inspection = Inspection(
            self.cameras,
            self.engine,
            self.outputs,
            changed=self.changed,
            clock=clock,
            **options,
        )

    def run(self) -> InspectedLine:
        self.inspection.run()
        return self

    @property
    def frames(self) -> int:
        return sum(camera.figures.frames for camera in self.cameras)


def inspect_images(images: Sequence[Any], *outputs: Output, **options: Any) -> InspectedLine:
    """Run a line with one source of pictures to its end."""
    return InspectedLine([FakeSource(images)], outputs, **options).run()


def _giving(source: FrameSource) -> Callable[[], FrameSource]:
    return lambda: source
