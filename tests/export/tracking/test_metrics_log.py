"""Metrics as they come: a class's own, the mean, the best so far."""

from __future__ import annotations

from patchline.export.evaluation.result import Metrics
from patchline.export.tracking.metrics_log import MetricsLog, values_of

from ..recorder import Recorder


def test_the_best_of_each_is_kept_for_itself() -> None:
    tracker = Recorder()
    log = MetricsLog(tracker, "lamp", {"bulb": Metrics(image_auroc=0.5)})
    log.tell(Metrics(image_auroc=0.7, aupro=0.25), step=10)
    log.tell(Metrics(image_auroc=0.9, aupro=0.125), step=20)
    log.tell(Metrics(image_auroc=0.8), step=30)
    assert tracker.history("metrics/lamp/image_auroc") == [(10, 0.7), (20, 0.9), (30, 0.8)]
    assert tracker.history("metrics/best/lamp/image_auroc") == [(10, 0.7), (20, 0.9), (30, 0.9)]
    assert tracker.history("metrics/mean/image_auroc") == [(10, 0.6), (20, 0.7), (30, 0.65)]
    assert tracker.history("metrics/best/mean/image_auroc") == [(10, 0.6), (20, 0.7), (30, 0.7)]
    # The other class has none, and this one none at the end.
    assert tracker.history("metrics/lamp/aupro") == [(10, 0.25), (20, 0.125)]
    assert tracker.history("metrics/mean/aupro") == [(10, 0.25), (20, 0.125)]
    assert tracker.history("metrics/best/lamp/aupro") == [(10, 0.25), (20, 0.25), (30, 0.25)]
    assert tracker.results == {
        "metrics/best/lamp/image_auroc": 0.9,
        "metrics/best/lamp/aupro": 0.25,
        "metrics/best/mean/image_auroc": 0.7,
        "metrics/best/mean/aupro": 0.25,
    }


def test_the_exported_model_counts_once() -> None:
    """Its class is among those of the mean then, and is told in place of itself."""
    tracker, classes = Recorder(), {"lamp": Metrics(image_auroc=0.1)}
    MetricsLog(tracker, "lamp", classes).tell(Metrics(image_auroc=0.75), step=0)
    assert tracker.figures["metrics/mean/image_auroc"] == 0.75
    assert classes == {"lamp": Metrics(image_auroc=0.1)}  # kept by who exports


def test_only_what_is_defined_has_a_value() -> None:
    assert values_of(Metrics(image_ap=0.0, aupro=0.5)) == {"image_ap": 0.0, "aupro": 0.5}
    assert values_of(Metrics()) == {}
