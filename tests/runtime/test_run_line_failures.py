"""``run-camera`` while outputs fail: frames go on, and events arrive afterwards."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from .mjpeg_server import CameraServer
from .outputs.broker import Broker, Subscriber, needs_mosquitto
from .outputs.test_hook import Plc
from .outputs.web_server import WebServer, status
from .running_line import RunningLine, eventually, files_below

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
STEADY = "test://?fps=40&width=64&height=64"
MIDDLE = ("--threshold", 60)
"""Half of the pictures of a CameraServer are brighter: an event starts every 0.4 seconds."""

HOOKS = """
import threading
from pathlib import Path

class Output:
    name = "my output"
    def __init__(self, file): self.file = Path(file)
    def write(self, judged): pass
    def notify(self, notice): pass
    def close(self): pass

class Raises(Output):
    def write(self, judged):
        if self.file.exists():
            raise RuntimeError("the lamp is broken")
    notify = write

class Short(Raises):
    name = "a"

class Hangs(Output):
    def write(self, judged):
        self.file.touch()
        threading.Event().wait()
"""


@pytest.fixture
def camera() -> Iterator[CameraServer]:
    with CameraServer() as server:
        yield server


@pytest.fixture
def hooks(tmp_path: Path) -> dict[str, str]:
    """The environment in which ``my_hooks`` and the documented example are found."""
    folder = tmp_path / "hooks"
    folder.mkdir()
    (folder / "my_hooks.py").write_text(HOOKS)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{EXAMPLES}"}


# Outputs


@needs_mosquitto
def test_all_outputs_at_once(
    tiny_model: Path, tmp_path: Path, camera: CameraServer, hooks: dict[str, str]
) -> None:
    with other_ends(tmp_path / "broker") as (broker, web, plc):
        words = (
            *("--engine", tiny_model, "--source", camera.uri, *MIDDLE, "--print", "all"),
            *("--log", tmp_path / "log.jsonl", "--store", tmp_path / "store"),
            *("--store-every", 7, "--output", tmp_path / "annotated.avi"),
            *("--mqtt", broker.url, "--name", "hall2"),
            *("--webhook", f"{web.origin}/events", "--webhook-picture"),
            *("--metrics", 0, "--dashboard", "--port", 0, "--output-hook", "plc:Relay"),
            *("--output-option", "host=127.0.0.1", "--output-option", f"port={plc.port}"),
            *("--output-option", "coil=3", "--output-option", "seconds=0.1"),
        )
        subscriber = Subscriber(broker)
        with RunningLine(tmp_path / "run", *words, environment=hooks) as line:
            line.wait(lambda: len(line.lines("event")) >= 6)
            line.wait(lambda: (3, True) in plc.coils)
            assert line.end() == 0, line.stderr
            assert all("drift" in warning for warning in line.warnings), line.warnings
            printed = line.lines()
            events = {event["message_id"] for event in line.lines("event")}
        eventually(lambda: len(on_topic(subscriber)) >= len(events))
        subscriber.close()
    log = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sorted(map(json.dumps, log)) == sorted(map(json.dumps, printed))
    assert sorted(on_topic(subscriber)) == sorted(events)
    assert sorted(posted(web)) == sorted(events)
    stored = {path.suffix for path in files_below(tmp_path / "store")}
    assert stored == {".jpg", ".json"}
    capture = cv2.VideoCapture(str(tmp_path / "annotated.avi"))
    frames = [line for line in printed if line["type"] == "frame"]
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)
    assert plc.coils[-1] == (3, False)


@contextlib.contextmanager
def other_ends(folder: Path) -> Iterator[tuple[Broker, WebServer, Plc]]:
    """What outputs send to."""
    broker = Broker(folder)
    broker.start()
    with contextlib.ExitStack() as open_ends:
        open_ends.callback(broker.close)
        web, plc = WebServer(), Plc()
        open_ends.callback(web.close)
        open_ends.callback(plc.close)
        yield broker, web, plc


def on_topic(subscriber: Subscriber, line: str = "hall2") -> list[str]:
    """Ids of the events that the broker has passed on."""
    found = subscriber.on(f"patchline/{line}/camera1/event")
    return [json.loads(message.payload)["message_id"] for message in found]


def posted(web: WebServer) -> list[str]:
    return [json.loads(request.body)["message_id"] for request in web.requests]


@needs_mosquitto
def test_a_broker_that_was_killed_gets_the_events_afterwards(
    tiny_model: Path, tmp_path: Path, camera: CameraServer
) -> None:
    broker = Broker(tmp_path / "broker", is_persistent=True)
    broker.start()
    subscriber = Subscriber(broker)
    words = ("--engine", tiny_model, "--source", camera.uri, *MIDDLE, "--print", "all")
    try:
        with RunningLine(tmp_path / "run", *words, "--mqtt", broker.url) as line:
            line.wait(lambda: on_topic(subscriber, "line1"))
            broker.terminate()
            line.wait_for_frames(50)
            line.wait_for_words("warning: mqtt")
            before = len(line.lines("event"))
            line.wait(lambda: len(line.lines("event")) >= before + 3)
            broker.start()
            line.wait(lambda: len(set(on_topic(subscriber, "line1"))) >= before + 3)
            assert line.end() == 0, line.stderr
            events = {event["message_id"] for event in line.lines("event")}
            about_mqtt = [warning for warning in line.warnings if "mqtt" in warning]
        eventually(lambda: set(on_topic(subscriber, "line1")) >= events)
        assert set(on_topic(subscriber, "line1")) == events
        assert len(about_mqtt) == 2, about_mqtt  # it was lost, and is back
    finally:
        subscriber.close()
        broker.close()


def test_a_webhook_that_answers_500_gets_the_events_afterwards(
    tiny_model: Path, tmp_path: Path, camera: CameraServer
) -> None:
    web = WebServer(status(500), status(500))
    words = ("--engine", tiny_model, "--source", camera.uri, *MIDDLE, "--print", "all")
    try:
        with RunningLine(tmp_path, *words, "--webhook", f"{web.origin}/x?token=geheim") as line:
            line.wait(lambda: len(web.requests) >= 5)
            line.wait_for_frames(5)
            assert line.end() == 0, line.stderr
            told = [warning for warning in line.warnings if "webhook" in warning]
            assert len(told) == 2, told  # it refuses, and takes events again
            assert "geheim" not in line.stdout + line.stderr
            events = [event["message_id"] for event in line.lines("event")]
        found = posted(web)
        assert found[0] == found[1] == found[2]
        assert found[2:] == events[: len(found) - 2]
    finally:
        web.close()


@pytest.mark.parametrize("option", ["--log", "--store", "--output"])
def test_a_folder_that_is_gone_for_a_while_stops_nothing(
    tiny_model: Path, tmp_path: Path, camera: CameraServer, option: str
) -> None:
    folder, aside = tmp_path / "out", tmp_path / "aside"
    target = folder / "log.jsonl" if option == "--log" else folder
    folder.mkdir()
    # A size that one part of the frames fills makes the log open a new file.
    size = ("--log-size", "4K") if option == "--log" else ()
    # Without events: the folder of annotated pictures has no use for them.
    rules = ("--threshold", 10, "--trigger", "1/1")
    words = ("--engine", tiny_model, "--source", camera.uri, *rules, option, target, *size)
    with RunningLine(tmp_path / "run", *words) as line:
        line.wait_for_frames(5)
        eventually(lambda: list(files_below(folder)))
        folder.rename(aside)
        folder.write_text("in the way")
        line.wait_for_words("warning: ", 2)  # the first one is of the drift watch
        line.wait_for_frames(50)
        folder.unlink()
        folder.mkdir()
        eventually(lambda: list(files_below(folder)))
        line.wait_for_frames(5)
        assert line.end() == 0, line.stderr
        about_it = [warning for warning in line.warnings if str(folder) in warning]
        assert len(about_it) == 2, about_it  # the failure, and that it works again


def test_an_output_of_one_s_own_that_raises_is_told_once_for_each_bout(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    switch = tmp_path / "broken"
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Raises")
    option = ("--output-option", f"file={switch}")
    with RunningLine(tmp_path, *words, *option, environment=hooks) as line:
        line.wait_for_frames(3)
        for bout in (1, 2):
            switch.touch()
            line.wait_for_words("the lamp is broken", bout)
            line.wait_for_frames(80)
            switch.unlink()
            line.wait(lambda bout=bout: len(line.warnings) >= 1 + 2 * bout)
        assert line.end() == 0, line.stderr
        assert line.stderr.count("the lamp is broken") == 2
        assert "Traceback" not in line.stderr


def test_two_outputs_of_one_name_are_refused(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    hook = ("--output-hook", "my_hooks:Raises", "--output-hook", "my_hooks:Hangs")
    words = ("--engine", tiny_model, "--source", STEADY, *hook, "--output-option", "file=x")
    with RunningLine(tmp_path, *words, environment=hooks) as line:
        assert line.status() == 1
        assert "two outputs are called 'my output'" in line.sentence


def test_a_short_name_stands_before_its_sentence(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Short")
    with RunningLine(
        tmp_path, *words, "--output-option", f"file={tmp_path}", environment=hooks
    ) as line:
        line.wait_for_words("warning: a: failed with RuntimeError: the lamp is broken")


def test_an_output_that_is_failing_at_the_end_is_status_1(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    switch = tmp_path / "broken"
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Raises")
    option = ("--output-option", f"file={switch}")
    with RunningLine(tmp_path, *words, *option, environment=hooks) as line:
        line.wait_for_frames(3)
        switch.touch()
        line.wait_for_words("the lamp is broken")
        assert line.end() == 1
        assert "not complete: my output" in line.sentence


def test_an_output_that_hangs_does_not_hold_up_the_line(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    log, begun = tmp_path / "log.jsonl", tmp_path / "begun"
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Hangs")
    option = ("--output-option", f"file={begun}", "--log", log)
    with RunningLine(tmp_path, *words, *option, environment=hooks) as line:
        line.wait(begun.exists)
        line.wait_for_frames(60)
        assert line.end() == 1
        assert "Summary" in line.stderr
        assert "warning: my output: was not finished within 10 s" in line.stderr
        assert "not complete: my output" in line.sentence
        assert "Traceback" not in line.stderr
        logged = [json.loads(text) for text in log.read_text().splitlines()]
        assert len([one for one in logged if one["type"] == "frame"]) == len(line.frames())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_the_log_is_said_before_the_line_starts_or_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    link = tmp_path / "log.jsonl"
    link.symlink_to("/dev/full")
    words = ("--engine", tiny_model, "--source", STEADY, "--max-frames", 20, "--log", link)
    with RunningLine(tmp_path, *words) as line:
        assert line.status() == 1, line.stderr
        assert str(link) in line.sentence
        assert "Traceback" not in line.stderr
    assert Path("/dev/full").is_char_device()
