"""Counts that cameras and queues keep themselves, as Prometheus asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from patchline.runtime.line.controls import CameraView


class QueueView(Protocol):
    """What is told of an output's queue; :class:`QueuedOutput` has it."""

    @property
    def name(self) -> str:
        """Of the output."""

    @property
    def depth(self) -> int:
        """Frames and notices that wait."""

    @property
    def dropped_frames(self) -> int:
        """Frames that it was not given."""

    @property
    def dropped_notices(self) -> int:
        """Notices that it was not given."""

    @property
    def failures(self) -> int:
        """Failed calls."""


class AskedCounts:
    """A collector: it fetches everything when somebody looks.

    Args:
        prometheus: its module.
        cameras: the cameras as they are now.
        outputs: the queues of the outputs.
    """

    def __init__(
        self,
        prometheus: Any,
        cameras: Callable[[], Sequence[CameraView]],
        outputs: Callable[[], Sequence[QueueView]],
    ) -> None:
        self._families = prometheus.metrics_core
        self._cameras, self._outputs = cameras, outputs

    def describe(self) -> list[Any]:
        """Nothing: at registration there may be no line yet to be asked."""
        return []

    def collect(self) -> Iterator[Any]:
        """One family after the other."""
        counter, gauge = self._families.CounterMetricFamily, self._families.GaugeMetricFamily
        dropped = counter(
            "patchline_dropped", "Live frames replaced by newer ones", labels=["camera"]
        )
        for camera in self._cameras():
            dropped.add_metric([camera.name], camera.dropped)
        yield dropped
        depth = gauge("patchline_output_queue_depth", "Records that wait", labels=["output"])
        lost = counter(
            "patchline_output_dropped", "Records not written", labels=["output", "record"]
        )
        failures = counter("patchline_output_failures", "Failed attempts", labels=["output"])
        for output in self._outputs():
            depth.add_metric([output.name], output.depth)
            lost.add_metric([output.name, "frame"], output.dropped_frames)
            lost.add_metric([output.name, "notice"], output.dropped_notices)
            failures.add_metric([output.name], output.failures)
        yield from (depth, lost, failures)
