"""``--metrics``: counts, times and states of a line for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from patchline.runtime.camera.states import StateChange, StreamState
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.line.controls import CameraView
from patchline.runtime.outputs.metrics_asked import AskedCounts, QueueView
from patchline.runtime.verdict import JudgedFrame, StageTimes

_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SCORE_BUCKETS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_CAMERA = ("camera", "class")


class MetricsOutput:
    """Counts what it is given, in a registry of its own.

    Args:
        cameras: the cameras as they are now, asked at each scrape; for dropped frames.
        outputs: the queues of the outputs, asked at each scrape.

    Attributes:
        registry: what a server shows; Prometheus' ``CollectorRegistry``.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    name = "the metrics"

    def __init__(
        self,
        cameras: Callable[[], Sequence[CameraView]] = lambda: (),
        outputs: Callable[[], Sequence[QueueView]] = lambda: (),
    ) -> None:
        prometheus = import_prometheus()
        self.registry = registry = prometheus.CollectorRegistry()
        self._lost: set[str] = set()
        self._products: dict[str, str] = {}

        def make(kind: Any, name: str, text: str, labels: Sequence[str], **options: Any) -> Any:
            return kind(f"patchline_{name}", text, labels, registry=registry, **options)

        counter, gauge, histogram = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
        self._frames = make(counter, "frames", "Frames judged", _CAMERA)
        self._anomalous = make(counter, "anomalous", "Frames at or above the threshold", _CAMERA)
        self._events = make(
            counter, "events", "Events by kind and phase", (*_CAMERA, "kind", "phase")
        )
        self._stages = make(
            histogram,
            "stage_seconds",
            "Time per frame and stage",
            ("camera", "stage"),
            buckets=_STAGE_BUCKETS_S,
        )
        self._relative = make(
            histogram,
            "relative_score",
            "Image scores in units of the threshold",
            _CAMERA,
            buckets=_SCORE_BUCKETS,
        )
        self._score = make(gauge, "score", "Image score of the latest frame", _CAMERA)
        self._threshold = make(gauge, "threshold", "What image scores are compared with", _CAMERA)
        self._seen = make(
            gauge, "last_frame_timestamp_seconds", "When it was captured", ("camera",)
        )
        self._state = make(
            prometheus.Enum,
            "camera_state",
            "State of the stream",
            ("camera",),
            states=[state.value for state in StreamState],
        )
        self._reopenings = make(counter, "reopenings", "Times a lost camera came back", ("camera",))
        registry.register(AskedCounts(prometheus, cameras, outputs))
        prometheus.ProcessCollector(namespace="patchline", registry=registry)

    def write(self, judged: JudgedFrame) -> None:
        """Count one frame."""
        verdict = judged.verdict
        labels = (verdict.camera, verdict.class_name)
        self._see_product(*labels)
        self._frames.labels(*labels).inc()
        self._anomalous.labels(*labels).inc(int(verdict.anomalous))
        self._score.labels(*labels).set(verdict.score)
        self._threshold.labels(*labels).set(verdict.threshold)
        self._seen.labels(verdict.camera).set(verdict.time.timestamp())
        if verdict.threshold > 0:
            self._relative.labels(*labels).observe(verdict.score / verdict.threshold)
        for stage, value_ms in _stages(verdict.times):
            self._stages.labels(verdict.camera, stage).observe(value_ms / 1000)

    def notify(self, notice: Notice) -> None:
        """Count an event, or show a state."""
        if isinstance(notice, Event):
            phase, kind = notice.phase.value, notice.kind.value
            self._events.labels(notice.camera, notice.class_name, kind, phase).inc()
        else:
            self._show(notice)

    def close(self) -> None:
        """The server goes on showing the last counts until it is stopped."""

    def _see_product(self, camera: str, product: str) -> None:
        before = self._products.get(camera)
        if before is not None and before != product:  # its last score would be shown for ever
            for gauge in (self._score, self._threshold):
                gauge.remove(camera, before)
        self._products[camera] = product

    def _show(self, change: StateChange) -> None:
        self._state.labels(change.camera).state(change.state.value)
        reopenings = self._reopenings.labels(change.camera)
        if change.state is StreamState.RECONNECTING:
            self._lost.add(change.camera)
        elif change.state is StreamState.RUNNING and change.camera in self._lost:
            self._lost.remove(change.camera)
            reopenings.inc()


class MetricsServer:
    """Serves ``/metrics`` from a thread of its own.

    Args:
        output: whose registry is shown.
        host: to listen at.
        port: 0 for any that is free.

    Attributes:
        url: of the page.

    Raises:
        ConfigurationError: the port is taken, or the host is not of this machine.
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, output: MetricsOutput, host: str = "127.0.0.1", port: int = 9750) -> None:
        prometheus = import_prometheus()
        try:
            self._server, self._thread = prometheus.start_http_server(
                port, addr=host, registry=output.registry
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"--metrics {host}:{port} cannot be served: {reason}. Choose another port, or an "
                "address of this machine"
            ) from error
        self._thread.name = "metrics server"
        bracketed = f"[{host}]" if ":" in host else host
        self.url = f"http://{bracketed}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop serving; a second call does nothing."""
        stopping = threading.Thread(target=self._server.shutdown, daemon=True)
        if self._thread.is_alive():
            stopping.start()
            self._thread.join(5.0)
        self._server.socket.close()


def start_metrics_server(
    output: MetricsOutput, host: str = "127.0.0.1", port: int = 9750
) -> MetricsServer:
    """Serve the metrics of an output; see :class:`MetricsServer`."""
    return MetricsServer(output, host, port)


def import_prometheus() -> Any:
    """The Prometheus client.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import prometheus_client
        import prometheus_client.metrics_core
    except ImportError as error:
        raise MissingExtraError(
            'prometheus-client is not installed. Install it with: pip install "patchline[metrics]"'
        ) from error
    return prometheus_client


def _stages(times: StageTimes) -> tuple[tuple[str, float], ...]:
    return (
        ("read", times.read_ms),
        ("wait", times.wait_ms),
        ("preprocess", times.preprocess_ms),
        ("infer", times.infer_ms),
        ("total", times.total_ms),
    )
