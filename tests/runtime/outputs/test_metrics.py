"""The metrics as Prometheus itself reads them."""

from __future__ import annotations

import builtins
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.event import EventKind, Phase
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.line.controls import CameraView
from patchline.runtime.outputs.metrics import MetricsOutput, MetricsServer, start_metrics_server
from patchline.runtime.outputs.queued import QueuedOutput

from ..fakes import NOON, FakeOutput
from .given import event, frame, state

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus-client is not installed: patchline[metrics]"
)


def scraped(server: MetricsServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(server.url, timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Any:
    view = CameraView(
        "left", "rtsp://***", "lamp", StreamState.RUNNING, "", 200.0, 200.0, Trigger(), 9, 1, 17,
        25.0, None, None, None, False,
    )  # fmt: skip
    queued = QueuedOutput(FakeOutput("the log"))
    output = MetricsOutput(lambda: [view], lambda: [queued])
    server = start_metrics_server(output, port=0)
    yield output, server
    server.close()
    server.close()
    queued.close()


def test_frames_scores_and_times_by_camera_and_class(metrics: Any) -> None:
    output, server = metrics
    for index, score in enumerate((100.0, 300.0, 200.0)):
        output.write(frame(index, camera="left", score=score))
    other = frame(3, camera="left", score=50.0)
    output.write(replace(other, verdict=replace(other.verdict, class_name="cap")))
    found = scraped(server)
    lamp = (("camera", "left"), ("class", "lamp"))
    assert found["patchline_frames_total", lamp] == 3
    assert found["patchline_frames_total", (("camera", "left"), ("class", "cap"))] == 1
    assert found["patchline_anomalous_total", lamp] == 2
    for gauge in ("patchline_score", "patchline_threshold"):
        shown = [dict(labels)["class"] for name, labels in found if name == gauge]
        assert shown == ["cap"]  # no last score of a product that is not judged any more
    assert found["patchline_relative_score_bucket", (*lamp, ("le", "0.5"))] == 1
    assert found["patchline_relative_score_bucket", (*lamp, ("le", "1.0"))] == 2
    assert found["patchline_relative_score_count", lamp] == 3
    infer = (("camera", "left"), ("stage", "infer"))
    assert found["patchline_stage_seconds_count", infer] == 4
    assert found["patchline_stage_seconds_sum", infer] == pytest.approx(4 * 0.003)
    seen = found["patchline_last_frame_timestamp_seconds", (("camera", "left"),)]
    assert seen == NOON.timestamp()


def test_events_states_and_reopenings(metrics: Any) -> None:
    output, server = metrics
    output.notify(event(1, camera="left"))
    output.notify(event(1, camera="left", phase=Phase.ENDED))
    output.notify(event(2, camera="left", kind=EventKind.DRIFT))
    for new in ("connecting", "running", "stalled", "reconnecting", "reconnecting", "running"):
        output.notify(state(StreamState(new), camera="left"))
    output.notify(state(StreamState.STALLED, camera="left"))
    output.notify(state(StreamState.RUNNING, camera="left"))  # it had not been lost
    found = scraped(server)

    def events(kind: str, phase: str) -> float:
        labels = {"camera": "left", "class": "lamp", "kind": kind, "phase": phase}
        return found["patchline_events_total", tuple(sorted(labels.items()))]

    assert (events("defect", "started"), events("defect", "ended")) == (1, 1)
    assert events("drift", "started") == 1
    states = {
        dict(labels)["patchline_camera_state"]: value
        for (name, labels), value in found.items()
        if name == "patchline_camera_state"
    }
    assert states == {new.value: float(new is StreamState.RUNNING) for new in StreamState}
    assert found["patchline_reopenings_total", (("camera", "left"),)] == 1


def test_what_others_count_is_asked_at_each_scrape(metrics: Any) -> None:
    _, server = metrics
    found = scraped(server)
    assert found["patchline_dropped_total", (("camera", "left"),)] == 17
    log = ("output", "the log")
    assert found["patchline_output_queue_depth", (log,)] == 0
    assert found["patchline_output_dropped_total", (log, ("record", "frame"))] == 0
    assert found["patchline_output_dropped_total", (log, ("record", "notice"))] == 0
    assert found["patchline_output_failures_total", (log,)] == 0
    assert found["patchline_process_resident_memory_bytes", ()] > 1e6
    assert all(name.startswith("patchline_") for name, _ in found)


def test_a_threshold_of_zero_has_no_relative_score() -> None:
    output = MetricsOutput()
    judged = frame()
    output.write(replace(judged, verdict=replace(judged.verdict, threshold=0.0)))
    assert output.registry.get_sample_value(
        "patchline_frames_total", {"camera": "camera1", "class": "lamp"}
    ) == 1  # fmt: skip
    assert output.registry.get_sample_value(
        "patchline_relative_score_count", {"camera": "camera1", "class": "lamp"}
    ) is None  # fmt: skip
    output.close()


def test_two_lines_in_one_process_do_not_mix() -> None:
    first, second = MetricsOutput(), MetricsOutput()
    first.write(frame())
    labels = {"camera": "camera1", "class": "lamp"}
    assert first.registry.get_sample_value("patchline_frames_total", labels) == 1
    assert second.registry.get_sample_value("patchline_frames_total", labels) is None


def test_the_server_ends(metrics: Any) -> None:
    _, server = metrics
    scraped(server)
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url, timeout=5)


def test_a_port_that_is_taken_or_a_host_that_is_elsewhere_is_a_sentence() -> None:
    output = MetricsOutput()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--metrics 127.0.0.1:{port} cannot be"):
            start_metrics_server(output, port=port)
    with pytest.raises(ConfigurationError, match="cannot be served"):
        start_metrics_server(output, "192.0.2.1", 0)
    with pytest.raises(ConfigurationError, match="cannot be served"):
        start_metrics_server(output, port=70_000)


def test_without_the_client_the_pip_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "patchline\[metrics\]"'):
        MetricsOutput()
