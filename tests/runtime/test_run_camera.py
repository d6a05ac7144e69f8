"""``run-camera`` as a program: exit codes, streams, signals, pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from patchline.runtime.cli.signals import stop_on_signals
from tests.programs import run_program

from .mjpeg_server import CameraServer, Mode
from .tiny_model import write_tiny_bank, write_tiny_graph

PROGRAM = [sys.executable, "-m", "patchline.runtime.cli.run_camera"]
ENDLESS = "test://?fps=0&width=64&height=64"
HEAD = "model      lamp: brightness"


def command(model: Path, source: object, *options: object) -> list[str]:
    arguments = ["--engine", model, "--source", source, "--headless", *options]
    return [*PROGRAM, *map(str, arguments)]


def run(model: Path, source: object, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, source, *options), capture_output=True, text=True, timeout=120
    )


def lines(output: str) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in output.splitlines()]


def sentence(finished: subprocess.CompletedProcess[str]) -> str:
    """The one error line; there must be no traceback and nothing of the native libraries."""
    assert "Traceback" not in finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_folder_is_judged_picture_by_picture(tiny_model: Path, pictures: Path) -> None:
    finished = run(tiny_model, pictures, "--output", pictures.parent / "out")
    assert finished.returncode == 0, finished.stderr
    verdicts = lines(finished.stdout)
    files = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]
    assert [verdict["file"] for verdict in verdicts] == files
    assert [verdict["anomalous"] for verdict in verdicts] == [False] * 4 + [True]
    assert {verdict["source"] for verdict in verdicts} == {str(pictures)}
    assert finished.stderr.startswith(HEAD)
    assert "Summary" in finished.stderr
    assert (pictures.parent / "out/late/2.bmp").is_file()


def test_a_video_is_judged_and_annotated(
    tiny_model: Path, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    finished = run(tiny_model, make_video(), "--output", tmp_path / "annotated.mp4")
    assert finished.returncode == 0, finished.stderr
    assert [verdict["frame"] for verdict in lines(finished.stdout)] == list(range(30))
    assert "file" not in lines(finished.stdout)[0]
    capture = cv2.VideoCapture(str(tmp_path / "annotated.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 30
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25.0)


def test_frames_and_threshold_can_be_chosen(tiny_model: Path) -> None:
    finished = run(tiny_model, ENDLESS, "--max-frames", 3, "--threshold", 0.5, "--threads", 1)
    assert finished.returncode == 0, finished.stderr
    verdicts = lines(finished.stdout)
    assert [(v["threshold"], v["anomalous"]) for v in verdicts] == [(0.5, True)] * 3
    assert "0.5 (set in its place; the manifest says 200)" in finished.stderr


def test_an_unreadable_picture_ends_the_run_with_its_name(tiny_model: Path, pictures: Path) -> None:
    (pictures / "10.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    finished = run(tiny_model, pictures)
    assert finished.returncode == 1
    assert "10.png" in sentence(finished)
    assert len(lines(finished.stdout)) == 2


def test_unreadable_pictures_are_skipped_when_asked(tiny_model: Path, pictures: Path) -> None:
    (pictures / "10.png").write_bytes(b"")
    finished = run(tiny_model, pictures, "--skip-unreadable")
    assert finished.returncode == 0
    assert len(lines(finished.stdout)) == 4
    assert "warning: skipped: cannot read" in finished.stderr
    (row,) = [line for line in finished.stderr.splitlines() if "skipped unreadable" in line]
    assert "1" in row


def test_a_cut_video_is_judged_finished_and_reported(
    tiny_model: Path, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    finished = run(tiny_model, path, "--output", tmp_path / "annotated.avi")
    assert finished.returncode == 1
    judged = len(lines(finished.stdout))
    assert f"gave {judged} of its 30 frames" in sentence(finished)
    capture = cv2.VideoCapture(str(tmp_path / "annotated.avi"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == judged > 0
    # The native libraries have said nothing: a head, a table and a sentence are all there is.
    assert {line[0] for line in finished.stderr.splitlines()} <= set("mestS┌│└")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/gone/away", "does not exist"),
        ("97", "camera 97 does not open"),
        ("test://?speed=1", "unknown parameter 'speed'"),
        ("rtsp://admin:secret@127.0.0.1:9/x?token=secret", "rtsp://***@127.0.0.1:9/x?token=***"),
    ],
)
def test_a_source_that_does_not_open_is_one_sentence(
    tiny_model: Path, source: str, message: str
) -> None:
    finished = run(tiny_model, source, "--reconnect-limit", 0)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert message in sentence(finished)
    assert "secret" not in finished.stderr


def test_credentials_never_reach_any_output(tiny_model: Path) -> None:
    with CameraServer(fps=500) as server:
        server.then = (30, Mode.CLOSE)
        uri = server.uri.replace("//", "//admin:secret@") + "?token=secret"
        finished = run(tiny_model, uri, "--reconnect-limit", 0)
    assert finished.returncode == 1
    assert "ended after 30 frames" in sentence(finished)
    assert "***@127.0.0.1" in lines(finished.stdout)[0]["source"]
    assert "secret" not in finished.stdout + finished.stderr


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    finished = run(tmp_path / "gone.onnx", ENDLESS)
    assert finished.returncode == 1
    assert "gone.onnx does not exist" in sentence(finished)


def test_no_window_is_one_sentence_before_the_loop(tiny_model: Path) -> None:
    arguments = [item for item in command(tiny_model, ENDLESS) if item != "--headless"]
    surroundings = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    finished = subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, env=surroundings
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "--headless" in sentence(finished)


@pytest.mark.parametrize(
    "options",
    [
        ("--max-frames", 0),
        ("--threads", 0),
        ("--threshold", "nan"),
        ("--threshold", "high"),
        ("--provider", "tpu"),
        ("--speed", 3),
    ],
)
def test_wrong_usage_exits_with_2(tiny_model: Path, options: tuple[object, ...]) -> None:
    finished = run(tiny_model, ENDLESS, *options)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert str(options[0]) in finished.stderr


@contextlib.contextmanager
def running(arguments: list[str], messages: Path) -> Iterator[subprocess.Popen[str]]:
    """The program at work, its stderr in a file: two pipes could block each other."""
    with (
        messages.open("w") as stderr,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(tiny_model: Path, tmp_path: Path, number: int) -> None:
    video, messages = tmp_path / "annotated.mp4", tmp_path / "messages"
    with running(command(tiny_model, ENDLESS, "--output", video), messages) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # the loop runs
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0, messages.read_text()
    assert "Summary" in messages.read_text()
    assert "Traceback" not in messages.read_text()
    verdicts = lines(first + rest)
    assert [verdict["frame"] for verdict in verdicts] == list(range(len(verdicts)))
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(verdicts)


def test_a_signal_ends_the_wait_for_a_silent_camera(tiny_model: Path, tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    server = CameraServer()
    server.then = (30, Mode.STALL)
    with server, running(command(tiny_model, server.uri), messages) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()  # the server is still silent
        process.wait()
    assert process.returncode == 0, messages.read_text()
    assert "Summary" in messages.read_text()


def test_a_second_signal_is_left_to_the_system() -> None:
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_goes_away_ends_it_without_a_traceback(
    tiny_model: Path, tmp_path: Path
) -> None:
    messages = tmp_path / "messages"
    with running(command(tiny_model, ENDLESS), messages) as process:
        assert process.stdout is not None
        assert len(lines(process.stdout.readline())) == 1
        process.stdout.close()  # what `| head -1` does
    assert process.returncode == 0
    assert "Summary" in messages.read_text()
    assert "Traceback" not in messages.read_text()
    assert "Exception" not in messages.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_stdout_is_a_sentence(tiny_model: Path) -> None:
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            command(tiny_model, ENDLESS),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert finished.returncode == 1
    assert "the disk is full" in finished.stderr
    assert "no output is left that works: the JSON lines (stdout)" in sentence(finished)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are POSIX")
@pytest.mark.parametrize("output", ["out", "annotated.avi"])
def test_a_full_disk_under_the_output_does_not_stop_the_inspection(
    tiny_model: Path, tmp_path: Path, output: str
) -> None:
    source = "test://?fps=0&frames=40&width=320&height=240"
    arguments = command(tiny_model, source, "--output", tmp_path / output)
    finished = subprocess.run(
        ["bash", "-c", 'ulimit -f 12; exec "$@"', "bash", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 1
    assert len(lines(finished.stdout)) == 40
    assert "warning: " in finished.stderr
    assert f"not complete: {tmp_path / output}" in sentence(finished)


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, patchline.runtime.cli.run_camera; "
        "print([n for n in ('cv2', 'numpy', 'onnxruntime', 'pydantic') if n in sys.modules])"
    )
    found = run_program([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.shared_data
def test_the_real_video_runs_through(tiny_model: Path, shared: Path, tmp_path: Path) -> None:
    source = shared / "video/bolt-multi-size-detection.gif"
    finished = run(tiny_model, source, "--output", tmp_path / "annotated.mp4")
    assert finished.returncode == 0, finished.stderr
    assert len(lines(finished.stdout)) == 37


# Options of one kind of engine, and banks


def test_a_graph_needs_a_bank(tmp_path: Path) -> None:
    finished = run(write_tiny_graph(tmp_path), ENDLESS)
    assert finished.returncode == 1
    assert "holds no memory bank: give one product's with --bank" in sentence(finished)


def test_a_model_with_a_bank_takes_no_other(tiny_model: Path, tmp_path: Path) -> None:
    finished = run(tiny_model, ENDLESS, "--bank", write_tiny_bank(tmp_path / "cap.bank"))
    assert finished.returncode == 1
    assert "holds its own memory bank" in sentence(finished)


def test_a_graph_judges_by_the_bank_it_is_given(tmp_path: Path) -> None:
    bank = write_tiny_bank(tmp_path / "cap.bank", 50.0, 30.0)
    finished = run(write_tiny_graph(tmp_path), ENDLESS, "--bank", bank, "--max-frames", 2)
    assert finished.returncode == 0, finished.stderr
    assert {(line["class"], line["threshold"]) for line in lines(finished.stdout)} == {("cap", 30)}


@pytest.mark.parametrize(
    "options",
    [("--device", 0), ("--flavour", "tensorrt"), ("--no-build",), ("--no-cuda-graph",)],
)
def test_options_of_plans_are_refused_for_onnx_files(
    tiny_model: Path, options: tuple[object, ...]
) -> None:
    finished = run(tiny_model, ENDLESS, *options)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert f"{options[0]} would do nothing with lamp.onnx: for .trt" in sentence(finished)


@pytest.mark.parametrize("options", [("--provider", "cpu"), ("--threads", 2)])
def test_options_of_onnx_files_are_refused_for_plans(
    tiny_model: Path, options: tuple[object, ...]
) -> None:
    finished = run(tiny_model.with_suffix(".trt"), ENDLESS, *options)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert f"{options[0]} would do nothing with lamp.trt: for .onnx" in sentence(finished)
