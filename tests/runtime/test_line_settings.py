"""The TOML file of a line: what it gives, all that it refuses, and that no password gets out."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from patchline.runtime.camera.options import Codec, Flip
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.settings import (
    CameraSettings,
    LineSettings,
    load_settings,
    make_settings,
)

SECRET = "hunter2"
STREAM = f"rtsp://admin:{SECRET}@10.0.0.5/1"


def write(folder: Path, text: str) -> Path:
    path = folder / "line.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, **environment: str) -> LineSettings:
    return load_settings(write(folder, text), environment)


def refusal(folder: Path, text: str, **environment: str) -> str:
    """The message; whatever is wrong, the password is nowhere, the traceback included."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text, **environment)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def camera(text: str = "", source: str = "0") -> str:
    return f"[[camera]]\nsource = '{source}'\n{text}\n"


def test_a_whole_file(tmp_path: Path) -> None:
    line = load(
        tmp_path,
        f"""
        trigger = "3/5"
        drift_window = 600
        crop = [100, 50, 800, 600]
        [[camera]]
        name = "left"
        source = "{STREAM}"
        width = 1920
        height = 1080
        fps = 15
        codec = "h265"
        latency_ms = 100
        flip = "both"
        mask = "masks/left.png"
        threshold = 1.2
        [[camera]]
        source = "1"
        trigger = "1/1"
        crop = [0, 0, 64, 64]
        """,
    )
    left, other = line.cameras
    assert left == CameraSettings(
        name="left",
        source=STREAM,
        width=1920,
        height=1080,
        fps=15.0,
        codec=Codec.H265,
        latency_ms=100,
        flip=Flip.BOTH,
        crop=(100, 50, 800, 600),
        mask=tmp_path / "masks/left.png",
        threshold=1.2,
        trigger=Trigger(3, 5),
    )
    assert other == CameraSettings(name="camera2", source="1", crop=(0, 0, 64, 64))
    assert (line.drift, line.drift_window) == ("auto", 600)


def test_what_is_not_set_is_left_to_the_camera_and_the_model(tmp_path: Path) -> None:
    line = load(tmp_path, camera())
    assert line == LineSettings(cameras=(CameraSettings(name="camera1", source="0"),))
    (only,) = line.cameras
    assert (only.width, only.crop, only.mask, only.threshold) == (None, None, None, None)
    assert (only.codec, only.flip, only.trigger) == (Codec.AUTO, Flip.NONE, Trigger(1, 1))
    assert (line.drift, line.drift_window) == ("auto", 200)


@pytest.mark.parametrize(
    ("source", "is_path"),
    [
        ("line.mp4", True),
        ("pictures/*.png", True),
        ("a:b/c", True),
        ("0", False),
        ("17", False),
        ("/dev/video0", False),
        ("csi://0", False),
        ("v4l2:///dev/video0", False),
        ("test://?fps=5", False),
        ("file:///data/line.mp4", False),
        ("rtsp:/cam/1", False),
        ("gst://videotestsrc ! appsink", False),
        (f"admin:{SECRET}@cam/1", False),
    ],
)
def test_relative_paths_are_relative_to_the_file(
    tmp_path: Path, source: str, is_path: bool
) -> None:
    (only,) = load(tmp_path, camera(source=source)).cameras
    assert only.source == (str(tmp_path / source) if is_path else source)
    assert SECRET not in only.shown_source


def test_an_absolute_mask_stays_where_it_is(tmp_path: Path) -> None:
    (only,) = load(tmp_path, camera("mask = '/data/mask.png'")).cameras
    assert only.mask == Path("/data/mask.png")


def test_passwords_come_from_the_environment(tmp_path: Path) -> None:
    text = camera(source="rtsp://${CAM_USER}:${CAM_PASSWORD}@cam/$x/${1}")
    (only,) = load(tmp_path, text, CAM_USER="admin", CAM_PASSWORD="${CAM_USER}").cameras
    assert only.source == "rtsp://admin:${CAM_USER}@cam/$x/${1}"  # replaced once
    assert only.shown_source == "rtsp://***@cam/$x/${1}"
    message = refusal(tmp_path, text, CAM_USER=SECRET)
    assert "camera camera1: source needs the environment variable CAM_PASSWORD" in message
    assert "CAM_USER" not in message


def test_only_sources_are_filled_in_from_the_environment(tmp_path: Path) -> None:
    (only,) = load(tmp_path, camera("mask = '${HOME}.png'"), HOME="/root").cameras
    assert only.mask == tmp_path / "${HOME}.png"


def test_credentials_are_in_no_repr(tmp_path: Path) -> None:
    line = load(tmp_path, camera(source=STREAM))
    assert line.cameras[0].source == STREAM
    for text in (repr(line), str(line), repr(line.cameras[0])):
        assert SECRET not in text
    assert line.cameras[0].shown_source == "rtsp://***@10.0.0.5/1"


def test_settings_do_not_change(tmp_path: Path) -> None:
    line = load(tmp_path, camera())
    with pytest.raises(ValidationError, match="frozen"):
        line.cameras[0].threshold = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'a b'", "camera 1: name is 'a b', expected 1 to 64 letters"),
        ("name = ''", "camera 1: name is '', expected"),
        ("name = 3", "camera 1: name is 3, expected"),
        ("name = '../../x'", "camera 1: name is '../../x', expected"),
        ("name = 'straße'", "camera 1: name is 'straße', expected"),
        (f"name = '{'x' * 65}'", "expected 1 to 64 letters"),
        ("width = 0\nheight = 9", "camera1: width is 0, expected whole pixels, 1 to 16384"),
        ("width = 640", "camera1: width is given alone, expected width and height together"),
        ("height = 480", "camera1: height is given alone, expected width and height together"),
        ("height = 1.5", "camera1: height is 1.5, expected whole pixels"),
        ("height = true", "camera1: height is True, expected whole pixels"),
        ("fps = 0", "camera1: fps is 0, expected a number above 0"),
        ("fps = inf", "camera1: fps is inf, expected a number above 0"),
        ("fps = '30'", "camera1: fps is this text, expected a number above 0"),
        ("codec = 'h263'", "camera1: codec is 'h263', expected one of auto, h264, h265, mjpeg"),
        ("latency_ms = -1", "camera1: latency_ms is -1, expected whole milliseconds"),
        ("flip = 'up'", "camera1: flip is 'up', expected one of none, horizontal, vertical, both"),
        ("crop = [1, 2, 3]", "camera1: crop is [1, 2, 3], expected x, y, width and height"),
        ("crop = [0, 0, 0, 5]", "camera1: crop is [0, 0, 0, 5], expected"),
        ("crop = [-1, 0, 5, 5]", "camera1: crop is [-1, 0, 5, 5], expected"),
        ("crop = [0.5, 0, 5, 5]", "camera1: crop is [0.5, 0, 5, 5], expected"),
        ("crop = '0,0,5,5'", "camera1: crop is this text, expected"),
        ("crop = {x = 1}", "camera1: crop is a dict, expected"),
        ("mask = 5", "camera1: mask is 5, expected the path of a picture"),
        ("threshold = nan", "camera1: threshold is nan, expected a finite number"),
        ("threshold = '1'", "camera1: threshold is this text, expected a finite number"),
        ("trigger = '5/3'", "camera1: trigger is '5/3', expected N/M"),
        ("trigger = 3", "camera1: trigger is 3, expected N/M"),
        ("tresh = 3", "camera1: tresh is unknown here, expected one of width, height"),
        ("drift = 'off'", "camera1: drift is unknown here, expected one of width"),
    ],
)
def test_what_cannot_be_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, camera(text, STREAM))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drift = 'on'", "drift is 'on', expected auto or off"),
        ("drift = false", "drift is False, expected auto or off"),
        ("drift_window = 10", "drift_window is 10, expected whole frames, 100 to 100000"),
        ("trigger = 'x'", "line.toml: trigger is 'x', expected N/M"),
        ("name = 'x'", "name is unknown here"),
        ("source = 'rtsp://a:hunter2@x'", "source is unknown here"),
        ("cameras = 3", "cameras is unknown here, expected one of"),
        ("'rtsp://admin:hunter2@cam' = 3", "rtsp://***@cam is unknown here"),
        ("camera = 3", "each camera is a table that begins with [[camera]]"),
        ("camera = ['0']", "each camera is a table that begins with [[camera]]"),
        ("[camera]\nsource = '0'", "each camera is a table that begins with [[camera]]"),
        ("", "there is no camera, expected a table [[camera]]"),
        ("[[cameras]]\nsource = '0'", "there is no camera"),
        ("x = [", "is not valid TOML"),
        (f"source = '{STREAM}'\n= 3", "is not valid TOML"),
    ],
)
def test_a_wrong_top_level_is_refused(tmp_path: Path, text: str, message: str) -> None:
    whole = text if "camera" in text or not text else f"{text}\n{camera()}"
    assert message in refusal(tmp_path, whole)


@pytest.mark.parametrize("text", ["", "source = ''", "source = '  '", "source = 0", "source = []"])
def test_a_camera_needs_a_source(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, f"[[camera]]\nname = 'left'\n{text}")
    assert "camera left: source is " in message
    assert "expected an address or a path" in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (STREAM.replace("rtsp", "rtps"), "rtps://***@10.0.0.5/1: no source is called rtps://"),
        ("csi://left", "expected csi:// and a sensor number"),
        ("${EMPTY}", "the source is empty"),
    ],
)
def test_an_address_of_no_kind_is_refused(tmp_path: Path, source: str, message: str) -> None:
    found = refusal(tmp_path, camera(source=source), EMPTY="")
    assert "camera camera1: source: " in found
    assert message in found


def test_all_that_is_wrong_is_said_once(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        f"fps = -5\ndrift = 3\n{camera('latency_ms = 0.5')}{camera('crop = [0, 0, 0, 0.5]')}"
        f"[[camera]]\nname = 'third'\nsource = '{STREAM}${{X}}'\ncolour = 1\n",
    )
    origin, _, problems = message.partition("line.toml: ")
    assert origin.startswith(str(tmp_path))
    assert [problem.split(",")[0] for problem in problems.split("; ")] == [
        "fps is -5",
        "drift is 3",
        "camera camera1: latency_ms is 0.5",
        "camera camera2: crop is [0",
        "camera third: source needs the environment variable X",
        "camera third: colour is unknown here",
    ]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("left", "left"), "'left'"),
        (("Left", "left"), "'Left' and 'left'"),
        (("camera2", None), "'camera2'"),
    ],
)
def test_names_are_unique(tmp_path: Path, names: tuple[Any, ...], shown: str) -> None:
    text = "".join(camera("" if name is None else f"name = '{name}'") for name in names)
    assert f"two cameras are called {shown}, expected unique names" in refusal(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*no\.toml: No such file"):
        load_settings(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigurationError, match=r"latin\.toml is not UTF-8"):
        load_settings(tmp_path / "latin.toml")


def test_a_line_may_come_from_elsewhere_than_a_file() -> None:
    document = {"drift": "off", "camera": [{"source": "a.mp4"}, {"source": "b.mp4"}]}
    line = make_settings(document, Path(), "the command line", {})
    assert [(c.name, c.source) for c in line.cameras] == [
        ("camera1", "a.mp4"),
        ("camera2", "b.mp4"),
    ]
    assert "camera" in document  # as it was
    with pytest.raises(ConfigurationError, match=r"^the command line: there is no camera"):
        make_settings({}, Path(), "the command line", {})


@pytest.mark.parametrize(
    ("one", "other"),
    [("0", "/dev/video0"), ("v4l2:///dev/video2", "2"), ("csi://1", "csi://1")],
)
def test_two_cameras_with_the_same_device_are_refused(tmp_path: Path, one: str, other: str) -> None:
    message = refusal(tmp_path, camera(source=one) + camera(source=other))
    assert "the cameras 'camera1' and 'camera2' have the same device" in message


def test_two_cameras_may_look_at_the_same_stream_or_file(tmp_path: Path) -> None:
    for source in (STREAM, "parts.mp4", "test://"):
        assert len(load(tmp_path, camera(source=source) * 2).cameras) == 2
    assert len(load(tmp_path, camera(source="0") + camera(source="csi://0")).cameras) == 2
