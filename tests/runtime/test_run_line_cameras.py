"""``run-camera`` while cameras are lost and come back, and while a part of it hangs."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .mjpeg_server import CameraServer, Mode
from .rtsp_server import RtspServer, needs_rtsp_server
from .running_line import RunningLine

STEADY = "test://?fps=40&width=64&height=64"

HOOKS = """
import threading
from pathlib import Path
from patchline.runtime.cli import camera_watch
from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine

class Output:
    name = "my output"
    def __init__(self, file): self.file = Path(file)
    def write(self, judged): pass
    def notify(self, notice): pass
    def close(self): pass

class Hangs(Output):
    def __init__(self, file):
        super().__init__(file)
        camera_watch._OUTPUT_LIMIT_S = 0.5
    def write(self, judged):
        self.file.touch()
        threading.Event().wait()

class WedgesTheEngine(Output):
    def __init__(self, file):
        super().__init__(file)
        camera_watch.INSPECTION_LIMIT_S = 1.0
        camera_watch._LAST_WORDS_S = 1.0
        infer = OnnxRuntimeEngine.infer
        def wedged(engine, frames):
            if self.file.exists():
                threading.Event().wait()
            return infer(engine, frames)
        OnnxRuntimeEngine.infer = wedged
"""


@pytest.fixture
def camera() -> Iterator[CameraServer]:
    with CameraServer() as server:
        yield server


@pytest.fixture
def hooks(tmp_path: Path) -> dict[str, str]:
    """The environment in which ``my_hooks`` is found."""
    (tmp_path / "my_hooks.py").write_text(HOOKS)
    return {"PYTHONPATH": str(tmp_path)}


# Cameras


@needs_rtsp_server
def test_a_camera_that_is_killed_comes_back_while_the_other_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    with RtspServer(user_password="inspector:geheim") as server:
        lost = server.uri.replace("//", "//inspector:geheim@")
        words = ("--source", lost, "--source", STEADY, "--print", "all")
        with RunningLine(tmp_path, "--engine", tiny_model, *words) as line:
            line.wait_for_frames(3, "camera1")
            line.wait_for_frames(3, "camera2")
            server.kill()
            line.wait(lambda: "reconnecting" in line.states("camera1"))
            line.wait_for_frames(40, "camera2")
            server.start()
            line.wait(lambda: line.states("camera1")[-1] == "running")
            line.wait_for_frames(3, "camera1")
            assert line.states("camera1")[:2] == ["connecting", "running"]
            assert line.states("camera2") == ["connecting", "running"]
            assert "camera1: frames come again" in line.stderr
            indices = [frame["frame"] for frame in line.frames("camera1")]
            assert indices == sorted(set(indices))
            assert line.end() == 0, line.stderr
            assert "geheim" not in line.stdout + line.stderr


def test_a_camera_that_is_given_up_takes_no_other_with_it(
    tiny_model: Path, tmp_path: Path, camera: CameraServer
) -> None:
    words = ("--source", camera.uri, "--source", STEADY, "--reconnect-limit", 1)
    with RunningLine(tmp_path, "--engine", tiny_model, *words, "--print", "all") as line:
        line.wait_for_frames(3, "camera1")
        camera.mode = Mode.CLOSE
        camera.cut()
        line.wait_for_words("camera1 gives no more frames")
        line.wait_for_frames(20, "camera2")
        assert line.states("camera1")[-1] == "failed"
        assert line.end() == 1
        assert "Summary" in line.stderr
        assert camera.uri in line.sentence or "camera1" in line.sentence


def test_a_wait_for_a_lost_camera_ends_at_once(
    tiny_model: Path, tmp_path: Path, camera: CameraServer
) -> None:
    words = ("--source", camera.uri, "--print", "all")
    with RunningLine(tmp_path, "--engine", tiny_model, *words) as line:
        line.wait_for_frames(3)
        camera.mode = Mode.CLOSE
        camera.cut()
        line.wait(lambda: "reconnecting" in line.states())
        assert line.end() == 0, line.stderr
        assert "Summary" in line.stderr
        assert line.states()[-1] == "ended"


def test_a_camera_that_was_never_there_is_waited_for(tiny_model: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/line.mjpg"
        words = ("--source", address, "--print", "all")
        with RunningLine(tmp_path, "--engine", tiny_model, *words) as line:
            line.wait(lambda: "reconnecting" in line.states())
            assert line.end() == 0, line.stderr
            assert line.frames() == []


# What hangs


def test_an_engine_that_hangs_ends_the_process(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    switch, log = tmp_path / "wedged", tmp_path / "log.jsonl"
    hook = ("--output-hook", "my_hooks:WedgesTheEngine", "--output-option", f"file={switch}")
    words = ("--engine", tiny_model, "--source", STEADY, "--log", log)
    with RunningLine(tmp_path, *words, *hook, environment=hooks) as line:
        line.wait_for_frames(3)
        switch.touch()
        assert line.status() == 1
        assert "the inspection gave no sign of life" in line.sentence
        assert "the process must be" in line.sentence
        logged = [json.loads(text) for text in log.read_text().splitlines()]
        assert len([one for one in logged if one["type"] == "frame"]) == len(line.frames())


def test_a_second_sigterm_ends_it_at_once(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    begun = tmp_path / "begun"
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Hangs")
    option = ("--output-option", f"file={begun}", "--print", "all")
    with RunningLine(tmp_path, *words, *option, environment=hooks) as line:
        line.wait(begun.exists)
        line.send(signal.SIGTERM)
        line.wait(lambda: "ended" in line.states())  # and it waits for the output that hangs
        assert line.end() == -signal.SIGTERM


def test_an_output_that_hangs_for_good_ends_nothing(
    tiny_model: Path, tmp_path: Path, hooks: dict[str, str]
) -> None:
    begun = tmp_path / "begun"
    words = ("--engine", tiny_model, "--source", STEADY, "--output-hook", "my_hooks:Hangs")
    option = ("--output-option", f"file={begun}")
    with RunningLine(tmp_path, *words, *option, environment=hooks) as line:
        line.wait(begun.exists)
        line.wait_for_words("my output gave no sign of life")
        line.wait_for_words("warning: my output gave no sign of life")
        line.wait_for_frames(40)
        assert line.process.poll() is None
