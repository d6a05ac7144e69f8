"""Metrics of a class as they come: its own, the mean over the classes, and the best so far."""

from __future__ import annotations

from dataclasses import asdict

from patchline.export.evaluation.mean import mean_metrics
from patchline.export.evaluation.result import Metrics
from patchline.export.tracking.base import Tracker


class MetricsLog:
    """Tells the tracker of one class its metrics; all of them are the better the larger.

    Args:
        tracker: is told ``metrics/CLASS/NAME``, ``metrics/mean/NAME``,
            ``metrics/best/CLASS/NAME`` and ``metrics/best/mean/NAME``.
        class_name: of the class.
        classes: see below.

    Attributes:
        class_name: of the class.
        classes: metrics of exported models by class, for the mean; this class's own do not count
            while it is told others.
    """

    def __init__(self, tracker: Tracker, class_name: str, classes: dict[str, Metrics]) -> None:
        self.class_name, self.classes = class_name, classes
        self._tracker = tracker
        self._best: dict[str, float] = {}

    def tell(self, metrics: Metrics, *, step: int) -> None:
        """Log metrics and put the best so far into the summary.

        Args:
            metrics: of this class; what is ``None`` is left out.
            step: epochs that are over.
        """
        mean = mean_metrics({**self.classes, self.class_name: metrics}.values())
        found = {**_named(self.class_name, metrics), **_named("mean", mean)}
        for name, value in found.items():
            self._best[name] = max(value, self._best.get(name, value))
        best = {f"metrics/best/{name}": value for name, value in self._best.items()}
        now = {f"metrics/{name}": value for name, value in found.items()}
        self._tracker.log({**now, **best}, step=step)
        self._tracker.summary(best)


def values_of(metrics: Metrics) -> dict[str, float]:
    """The metrics that are defined, by name."""
    return {name: value for name, value in asdict(metrics).items() if value is not None}


def _named(whose: str, metrics: Metrics) -> dict[str, float]:
    return {f"{whose}/{name}": value for name, value in values_of(metrics).items()}
