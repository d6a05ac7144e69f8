"""USB cameras: what is asked for is set, read back, and said where it differs."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.options import NO_OPTIONS, Codec, SourceOptions
from patchline.runtime.camera.v4l2 import fourcc_text
from patchline.runtime.errors import ConfigurationError, SourceOpenError

from .fakes import gray

FULL = SourceOptions(width=1280, height=720, fps=30, codec=Codec.MJPEG)
MJPG = float(cv2.VideoWriter.fourcc(*"MJPG"))
YUYV = float(cv2.VideoWriter.fourcc(*"YUYV"))


class FakeCamera:
    """A ``cv2.VideoCapture`` that takes every setting but those of ``stubborn``."""

    opened: tuple[Any, ...]
    order: list[int]
    stubborn: dict[int, float] = {}  # noqa: RUF012 - set by the tests

    def __init__(self, *arguments: Any) -> None:
        type(self).opened = arguments
        type(self).order = []
        self._values = {
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 15.0,
            cv2.CAP_PROP_FOURCC: YUYV,
        }

    def isOpened(self) -> bool:
        return True

    def set(self, name: int, value: float) -> bool:
        type(self).order.append(name)
        self._values[name] = self.stubborn.get(name, float(value))
        return True  # many drivers say so and do something else

    def get(self, name: int) -> float:
        return self._values[name]

    def read(self) -> tuple[bool, np.ndarray]:
        return True, gray(1)

    def release(self) -> None: ...


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCamera]:
    monkeypatch.setattr(FakeCamera, "stubborn", {})
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    return FakeCamera


@pytest.mark.parametrize(
    ("uri", "device", "name"),
    [
        ("0", 0, "0"),
        ("007", 7, "7"),
        ("/dev/video1", "/dev/video1", "/dev/video1"),
        ("v4l2:///dev/video1", "/dev/video1", "/dev/video1"),
        ("/dev/v4l/by-id/usb-cam-index0", "/dev/v4l/by-id/usb-cam-index0", None),
    ],
)
def test_numbers_and_devices_are_cameras(
    camera: type[FakeCamera], uri: str, device: int | str, name: str | None
) -> None:
    source = open_source(uri)
    assert camera.opened[0] == device
    assert (source.is_live, source.name) == (True, name or device)
    assert camera.order == []  # nothing was asked for, nothing is set


def test_what_is_asked_for_is_set_the_codec_first(
    camera: type[FakeCamera], caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source("0", options=FULL)
    assert camera.order == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
    ]
    assert source.fps == 30.0
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        (
            cv2.CAP_PROP_FRAME_WIDTH,
            1024.0,
            "camera 0 gives 1024 x 720 px, not the 1280 x 720 px that were asked for",
        ),
        (cv2.CAP_PROP_FPS, 10.0, "gives 10 frames per second, not the 30 that were asked for"),
        (cv2.CAP_PROP_FPS, float("nan"), "gives nan frames per second, not the 30"),
        (cv2.CAP_PROP_FOURCC, YUYV, "gives YUYV, not the MJPEG that was asked for"),
        (cv2.CAP_PROP_FOURCC, -1.0, "gives an unknown codec, not the MJPEG"),
    ],
)
def test_a_camera_that_gives_something_else_is_a_warning_and_its_frames_come(
    camera: type[FakeCamera],
    caplog: pytest.LogCaptureFixture,
    name: int,
    value: float,
    warning: str,
) -> None:
    camera.stubborn[name] = value
    source = open_source("0", options=FULL)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert warning in caplog.text
    assert next(source.frames(threading.Event())).image.shape == (48, 64, 3)


def test_a_rate_that_differs_by_its_name_only_is_no_warning(
    camera: type[FakeCamera], caplog: pytest.LogCaptureFixture
) -> None:
    camera.stubborn[cv2.CAP_PROP_FPS] = 30000 / 1001
    open_source("0", options=FULL)
    assert caplog.text == ""


def test_a_missing_device_is_a_sentence() -> None:
    with pytest.raises(SourceOpenError, match=r"camera /dev/video97 does not open"):
        open_source("/dev/video97")


@pytest.mark.parametrize("uri", ["v4l2://0", "v4l2:/dev/video0", "v4l2://", "v4l2://data/x"])
def test_a_device_address_has_three_slashes(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="v4l2:///dev/video0"):
        open_source(uri)


@pytest.mark.parametrize(
    ("code", "text"),
    [(MJPG, "MJPG"), (YUYV, "YUYV"), (0.0, "an unknown codec"), (-1.0, "an unknown codec")],
)
def test_a_codec_is_named(code: float, text: str) -> None:
    assert fourcc_text(code) == text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 640}, "width is 640 and height is None"),
        ({"height": 640}, "width is None and height is 640"),
        ({"width": 0, "height": 5}, "width is 0, expected 1 to 16384"),
        ({"width": 5, "height": 16385}, "height is 16385"),
        ({"fps": 0.0}, "fps is 0.0, expected above 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 1001.0}, "fps is 1001.0"),
        ({"latency_ms": -1}, "latency_ms is -1, expected 0 to 60000"),
        ({"latency_ms": 60_001}, "latency_ms is 60001"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SourceOptions(**values)


def test_the_options_know_what_was_given() -> None:
    assert NO_OPTIONS.given == ()
    assert FULL.given == ("width", "height", "fps", "codec")
    assert SourceOptions(latency_ms=0).given == ("latency_ms",)
