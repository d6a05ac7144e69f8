"""``run-camera`` as a line that is left alone: settings file, page, systemd, options, secrets."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from .mjpeg_server import CameraServer
from .running_line import RunningLine, files_below

STEADY = "test://?fps=40&width=64&height=64"
SECRET = "geheim-4711"


@pytest.fixture
def line_toml(tmp_path: Path) -> Path:
    path = tmp_path / "line.toml"
    write_settings(path)
    return path


def write_settings(path: Path, left: str = "", right: str = "") -> None:
    path.write_text(
        f"""
drift = "off"
[[camera]]
name = "left"
source = "{STEADY}"
crop = [0, 0, 64, 24]
{left or "threshold = 900.0"}
[[camera]]
name = "right"
source = "{STEADY}"
{right or 'trigger = "3/5"'}
"""
    )


# The settings file and SIGHUP


def test_two_cameras_each_by_their_own_rules(
    tiny_model: Path, line_toml: Path, tmp_path: Path
) -> None:
    words = ("--engine", tiny_model, "--config", line_toml, "--print", "all")
    with RunningLine(tmp_path / "run", *words) as line:
        line.wait_for_frames(3, "left")
        line.wait_for_frames(3, "right")
        assert {frame["threshold"] for frame in line.frames("left")} == {900.0}
        assert {frame["threshold"] for frame in line.frames("right")} == {200.0}

        write_settings(
            line_toml,
            "threshold = 1.0\nfps = 3",
            'trigger = "1/1"\nthreshold = 1.5\ncrop = [8, 8, 8, 8]',
        )
        line.send(signal.SIGHUP)
        line.wait_for_words("was read again")
        line.wait(lambda: [f for f in line.frames("left") if f["threshold"] == 1.0])
        line.wait(lambda: [f for f in line.frames("right") if f["threshold"] == 1.5])
        line.wait(lambda: len(line.lines("event")) >= 2)
        assert "camera left has another fps: that takes a restart" in line.stderr
        assert line.end() == 0, line.stderr
        assert {event["camera"] for event in line.lines("event")} == {"left", "right"}
        phases = [event["phase"] for event in line.lines("event")]
        assert phases.count("started") == phases.count("ended") == 2
        assert "Summary" in line.stderr
        assert "Traceback" not in line.stderr


def test_a_file_with_mistakes_changes_nothing(
    tiny_model: Path, line_toml: Path, tmp_path: Path
) -> None:
    with RunningLine(tmp_path, "--engine", tiny_model, "--config", line_toml) as line:
        line.wait_for_frames(3, "left")
        write_settings(line_toml, "threshold = 'high'\nspeed = 1", f"mask = '{SECRET}.png'")
        line.send(signal.SIGHUP)
        line.wait_for_words("The settings before go on")
        for part in ("camera left: threshold is this text", "speed is unknown"):
            assert part in line.stderr
        line.wait_for_frames(5, "left")
        assert {frame["threshold"] for frame in line.frames("left")} == {900.0}
        assert line.end() == 0, line.stderr


def test_all_mistakes_are_said_at_once_and_no_password(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        f"""
trigger = "7/3"
[[camera]]
source = "rtsp://u:{SECRET}@127.0.0.1/1"
crop = [1, 2]
[[camera]]
name = "b"
source = "nothing://u:{SECRET}@127.0.0.1"
[[camera]]
name = "B"
source = "rtsp://u:${{THERE_IS_NONE}}@127.0.0.1"
threshold = nan
"""
    )
    with RunningLine(tmp_path, "--engine", tiny_model, "--config", path) as line:
        assert line.status() == 1
        for part in (
            "trigger is '7/3'",
            "camera camera1: crop is [1, 2]",
            "no source is called nothing://",
            "'b' and 'B'",
            "THERE_IS_NONE, which is not set",
            "threshold is nan",
        ):
            assert part in line.sentence
        assert SECRET not in line.stderr


def test_a_password_is_shown_by_no_output(tiny_model: Path, tmp_path: Path) -> None:
    settings, log, store = tmp_path / "line.toml", tmp_path / "log/l.jsonl", tmp_path / "store"
    log.parent.mkdir()
    with CameraServer() as camera:
        camera.user_password = f"inspector:{SECRET}"
        address = camera.uri.replace("//", "//inspector:${CAMERA_PASSWORD}@") + "?token=${TOKEN}"
        settings.write_text(f'threshold = 1.0\n[[camera]]\nsource = "{address}"\n')
        port = free_port()
        words = ("--engine", tiny_model, "--config", settings, "--log", log, "--store", store)
        page = ("--dashboard", "--port", 0, "--metrics", port, "--print", "all")
        secrets = {"CAMERA_PASSWORD": SECRET, "TOKEN": SECRET, "PATCHLINE_TOKEN": SECRET * 2}
        with RunningLine(tmp_path / "run", *words, *page, environment=secrets) as line:
            line.wait_for_frames(5)
            camera.cut()
            line.wait(lambda: "reconnecting" in line.states())
            line.wait_for_frames(2)
            metrics = get(f"http://127.0.0.1:{port}/metrics")
            assert b"patchline_frames_total" in metrics
            state = get(f"{page_of(line)}api/state", f"{SECRET * 2}")
            assert b"***@127.0.0.1" in state
            assert line.end() == 0, line.stderr
    assert "***@127.0.0.1" in line.stdout
    assert len(list(files_below(store))) > 0
    for path in files_below(tmp_path):
        assert SECRET not in str(path)
        assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET.encode() not in metrics + state


# The page


def test_the_controls_hold_at_once_and_after_a_restart(tiny_model: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = ("--engine", tiny_model, "--source", STEADY, "--dashboard", "--port", 0)
    with RunningLine(tmp_path / "1", *words, "--state", state) as line:
        line.wait_for_frames()
        url = page_of(line)
        post(f"{url}api/threshold", {"camera": "camera1", "threshold": 1.25})
        told = len(line.frames())
        post(f"{url}api/trigger", {"camera": "camera1", "trigger": "2/3"})
        line.wait_for_frames(8)
        # One frame may have been judged already, and a queue hands frames on a moment later.
        assert line.frames()[told + 5]["threshold"] == 1.25
        view = json.loads(get(f"{url}api/state"))["cameras"][0]
        assert (view["threshold"], view["trigger"]) == (1.25, "2/3")
        for path, body in (("threshold", {"threshold": "nan"}), ("trigger", {"trigger": "5/1"})):
            refused(400, f"{url}api/{path}", {"camera": "camera1", **body})
        assert line.end() == 0, line.stderr

    with RunningLine(tmp_path / "2", *words, "--state", state) as line:
        line.wait_for_frames()
        assert line.frames()[0]["threshold"] == 1.25
        assert "1.25 (set in its place; the manifest says 200)" in line.stderr
        assert json.loads(get(f"{page_of(line)}api/state"))["cameras"][0]["trigger"] == "2/3"
        assert line.end() == 0, line.stderr

    with RunningLine(tmp_path / "3", *words, "--state", state, "--threshold", 7) as line:
        line.wait_for_frames()
        assert line.frames()[0]["threshold"] == 7
        assert "the threshold 1.25 that was set by hand is dropped" in line.stderr
        assert json.loads(get(f"{page_of(line)}api/state"))["cameras"][0]["trigger"] == "2/3"
        assert line.end() == 0, line.stderr


def test_the_page_wants_its_token(tiny_model: Path, tmp_path: Path) -> None:
    token = "a-token-of-24-characters"
    words = ("--engine", tiny_model, "--source", STEADY, "--dashboard", "--port", 0)
    token_of = {"PATCHLINE_TOKEN": token}
    with RunningLine(tmp_path, *words, "--host", "0.0.0.0", environment=token_of) as line:
        line.wait_for_frames()
        found = re.search(r":(\d+)/$", page_of(line))
        assert found is not None
        url = f"http://127.0.0.1:{found[1]}/api/threshold"
        body = {"camera": "camera1", "threshold": 2.5}
        refused(401, url, body)
        refused(401, url, body, "a-token-of-25-characters!")
        post(url, body, token)
        line.wait(lambda: line.frames()[-1]["threshold"] == 2.5)
        assert line.end() == 0, line.stderr
        arguments = f"{line.process.args}"
        assert token not in arguments + line.stderr + line.stdout


def test_the_page_beyond_this_machine_needs_a_token(tiny_model: Path, tmp_path: Path) -> None:
    words = ("--engine", tiny_model, "--source", STEADY, "--dashboard", "--host", "0.0.0.0")
    with RunningLine(tmp_path, *words) as line:
        assert line.status() == 1
        assert "would be open to everybody on the network: give it a token" in line.sentence
        assert "--token " in line.sentence
        assert line.stdout == ""


@pytest.mark.parametrize("server", ["--port", "--metrics"])
def test_a_port_in_use_is_a_sentence_before_the_line_starts(
    tiny_model: Path, tmp_path: Path, server: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        page = ["--dashboard"] if server == "--port" else []
        words = ("--engine", tiny_model, "--source", STEADY, *page, server, port)
        with RunningLine(tmp_path, *words) as line:
            assert line.status() == 1
            assert str(port) in line.sentence
            assert "in use" in line.sentence
            assert line.stdout == ""


# systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What stands for systemd: a datagram socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(40)
        yield listener


def test_systemd_is_told_of_all_that_happens(
    tiny_model: Path, line_toml: Path, tmp_path: Path, manager: socket.socket
) -> None:
    surroundings = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "400000"}
    words = ("--engine", tiny_model, "--config", line_toml)
    with RunningLine(tmp_path / "run", *words, environment=surroundings) as line:
        first = manager.recv(4096).decode()
        assert first.startswith("READY=1\nSTATUS=2 cameras")
        assert "engine     ONNX Runtime" in line.stderr  # it is open by then
        for _ in range(3):
            until(manager, "WATCHDOG=1")
        line.wait_for_frames()
        line.send(signal.SIGHUP)
        assert re.search(r"MONOTONIC_USEC=\d+", until(manager, "RELOADING=1"))
        until(manager, "READY=1")
        assert line.end() == 0, line.stderr
        until(manager, "STOPPING=1")


def test_a_line_that_cannot_start_is_never_ready(
    tiny_model: Path, tmp_path: Path, manager: socket.socket
) -> None:
    surroundings = {"NOTIFY_SOCKET": manager.getsockname()}
    words = ("--engine", tiny_model, "--source", tmp_path / "gone")
    with RunningLine(tmp_path / "run", *words, environment=surroundings) as line:
        assert line.status() == 1
        manager.settimeout(0.2)
        with pytest.raises(TimeoutError):
            until(manager, "READY=1")


def until(manager: socket.socket, word: str) -> str:
    """Receive up to the message that begins with a word."""
    while not (message := manager.recv(4096).decode()).startswith(word):
        pass
    return message


# Options


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--webhook-picture"], ["--webhook-picture would do nothing without --webhook"]),
        (["--store-every", 3, "--store-days", 2], ["--store-every, --store-days would do nothing"]),
        (["--store-size", "1G"], ["without --store"]),
        (["--log-size", "1M"], ["--log-size would do nothing without --log"]),
        (["--log-files", 3], ["--log-files would do nothing without --log"]),
        (["--log", "x.avi", "--output", "x.avi"], ["--output and --log are both x.avi"]),
        (["--output-option", "a=b"], ["without --output-hook"]),
        (["--host", "::1", "--log-size", "1M"], ["--host would do nothing", "--log-size would"]),
        (["--port", 80], ["--port would do nothing without --dashboard"]),
        (["--token", "x" * 16], ["--token would do nothing without --dashboard"]),
        (["--skip-unreadable"], ["--skip-unreadable would do nothing"]),
        (["--config", "line.toml"], ["--source beside --config"]),
        (["--name", "../hall"], ["--name '../hall' cannot be"]),
        (["--name", ""], ["--name '' cannot be"]),
        (["--crop", "1,2,3"], ["'1,2,3' is no crop"]),
        (["--trigger", "5/3"], ["trigger is '5/3'"]),
        (["--log", "l.jsonl", "--log-size", "3X"], ["--log-size is '3X'"]),
        (["--metrics", "many"], ["--metrics many: expected PORT or HOST:PORT"]),
        (["--mqtt", "http://u:geheim-4711@h"], ["--mqtt", "expected mqtt[s]://"]),
        (["--webhook", "ftp://u:geheim-4711@h"], ["--webhook", "expected http://"]),
        (["--output-hook", "nothing:X"], ["--output-hook nothing:X: the module nothing cannot"]),
        (["--width", 64], ["width is given alone"]),
        (["--fps", 3], ["fps cannot be set for test://"]),
    ],
)
def test_options_that_cannot_be_are_one_sentence(
    tiny_model: Path, tmp_path: Path, words: list[Any], parts: list[str]
) -> None:
    with RunningLine(tmp_path, "--engine", tiny_model, "--source", STEADY, *words) as line:
        assert line.status() == 1
        for part in parts:
            assert part in line.sentence
        assert SECRET not in line.stderr
        assert line.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--log-files", 1],
        ["--store-days", "nan"],
        ["--port", 65536],
        ["--reconnect-limit", -1],
        ["--print", "nothing"],
        ["--drift", "on"],
        ["--fps", 0],
    ],
)
def test_values_out_of_range_are_wrong_usage(
    tiny_model: Path, tmp_path: Path, words: list[Any]
) -> None:
    with RunningLine(tmp_path, "--engine", tiny_model, "--source", STEADY, *words) as line:
        assert line.status() == 2
        assert words[0] in line.stderr
        assert "Traceback" not in line.stderr


def test_no_source_at_all_is_wrong_usage(tiny_model: Path, tmp_path: Path) -> None:
    with RunningLine(tmp_path, "--engine", tiny_model) as line:
        assert line.status() == 2
        assert "--config" in line.stderr


def test_a_token_in_the_environment_is_no_mistake(tiny_model: Path, tmp_path: Path) -> None:
    words = ("--engine", tiny_model, "--source", STEADY, "--max-frames", 1)
    with RunningLine(tmp_path, *words, environment={"PATCHLINE_TOKEN": "x" * 16}) as line:
        assert line.status() == 0, line.stderr


def test_a_crop_outside_the_picture_says_both_sizes(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ("--engine", tiny_model, "--source", pictures, "--crop", "0,0,900,900")
    with RunningLine(tmp_path / "run", *words) as line:
        assert line.status() == 1
        assert "900 x 900" in line.sentence
        assert "64 x 48" in line.sentence


def test_a_crop_outside_a_camera_s_picture_is_told_and_can_be_mended(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "line.toml"
    path.write_text(f'drift = "off"\n[[camera]]\nsource = "{STEADY}"\ncrop = [0, 0, 900, 900]\n')
    with RunningLine(tmp_path / "run", "--engine", tiny_model, "--config", path) as line:
        line.wait_for_words("warning: camera1, frame 0 was refused: the crop 0,0,900,900")
        assert "the picture has 64 x 64 px" in line.stderr
        path.write_text(path.read_text().replace("900", "32"))
        line.send(signal.SIGHUP)
        line.wait_for_frames(2)
        assert line.end() == 0, line.stderr
        (row,) = [row for row in line.stderr.splitlines() if "refused  " in row]
        assert re.search(r"[1-9]", row)


def test_reconnections_of_files_cannot_be_limited(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    limit = ("--reconnect-limit", 3)
    with RunningLine(
        tmp_path / "run", "--engine", tiny_model, "--source", pictures, *limit
    ) as line:
        assert line.status() == 1
        assert "files are never opened again" in line.sentence
    # A device whose name is mistyped is told as that.
    with RunningLine(
        tmp_path / "gone", "--engine", tiny_model, "--source", "/dev/gone", *limit
    ) as line:
        assert line.status() == 1
        assert "/dev/gone does not exist" in line.sentence


@pytest.mark.parametrize("option", ["--store", "--log"])
def test_nothing_is_written_into_the_source(
    tiny_model: Path, pictures: Path, tmp_path: Path, option: str
) -> None:
    target = pictures / "late" / "out"
    words = ("--engine", tiny_model, "--source", pictures, option, target)
    with RunningLine(tmp_path / "run", *words) as line:
        assert line.status() == 1
        assert f"{option} {target} lies in the source {pictures}" in line.sentence
    assert not target.exists()


def test_a_mask_is_refused_where_the_score_is_not_the_largest_value(
    tiny_model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.png"
    assert cv2.imwrite(str(mask), np.full((48, 64), 255, np.uint8))
    words = ("--engine", tiny_model, "--source", STEADY, "--mask", mask)
    with RunningLine(tmp_path / "run", *words) as line:
        assert line.status() == 1
        assert f"the mask {mask} cannot be used" in line.sentence


# What the tests need


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def page_of(line: RunningLine) -> str:
    """The page's address, which stderr tells."""
    found = line.wait(lambda: re.search(r"^page +(http://\S+)$", line.stderr, re.MULTILINE))
    return found[1]


def get(url: str, token: str | None = None) -> bytes:
    with urllib.request.urlopen(_request(url, token), timeout=20) as answer:
        return bytes(answer.read())


def post(url: str, body: dict[str, Any], token: str | None = None) -> None:
    with urllib.request.urlopen(_request(url, token, body), timeout=20) as answer:
        assert answer.status in (200, 204)


def refused(status: int, url: str, body: dict[str, Any], token: str | None = None) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(url, body, token)
    caught.value.close()
    assert caught.value.code == status


def _request(
    url: str, token: str | None, body: dict[str, Any] | None = None
) -> urllib.request.Request:
    origin = url.partition("/api")[0]
    headers = {"Content-Type": "application/json", "Origin": origin}
    if token is not None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data=data, headers=headers)
