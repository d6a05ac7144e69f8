"""Frames from folders and single pictures."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from patchline.runtime.camera.open import open_source
from patchline.runtime.camera.pictures import PictureSource, natural_key
from patchline.runtime.camera.source import CapturedFrame
from patchline.runtime.errors import ImageReadError, SourceError, SourceOpenError

from .fakes import FakeClock, gray


def read_all(uri: str) -> list[CapturedFrame]:
    return list(open_source(uri).frames(threading.Event()))


def test_a_folder_gives_all_pictures_below_it_in_natural_order(pictures: Path) -> None:
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "._1.png").write_bytes(b"what another system leaves behind")
    frames = read_all(str(pictures))
    names = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]
    assert [frame.file for frame in frames] == names
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.time.tzinfo is not None for frame in frames)


def test_a_single_picture_is_a_source_of_one_frame(pictures: Path) -> None:
    source = open_source(str(pictures / "late/2.bmp"))
    assert not source.is_live
    (frame,) = source.frames(threading.Event())
    assert frame.file == "2.bmp"
    np.testing.assert_array_equal(frame.image, gray(250))


@pytest.mark.parametrize("host", ["", "localhost"])
def test_file_addresses_name_paths(pictures: Path, host: str) -> None:
    folder = pictures.rename(pictures.with_name("a #1 ?"))
    address = f"file://{host}{folder}".replace(" ", "%20").replace("#", "%23")
    assert len(read_all(address)) == 5


def test_the_read_time_comes_from_the_clock(pictures: Path) -> None:
    source = open_source(str(pictures), clock=FakeClock(step_s=0.002))
    assert [frame.read_ms for frame in source.frames(threading.Event())] == pytest.approx([2.0] * 5)


def test_a_stopped_source_ends(pictures: Path) -> None:
    stop = threading.Event()
    frames = open_source(str(pictures)).frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == []


def test_an_unreadable_picture_stops_the_source_and_is_named(pictures: Path) -> None:
    (pictures / "2.jpg").write_bytes(b"no picture")
    frames = open_source(str(pictures)).frames(threading.Event())
    assert next(frames).file == "1.png"
    with pytest.raises(ImageReadError, match=r"2\.jpg.*--skip-unreadable"):
        next(frames)


def test_unreadable_pictures_are_skipped_and_counted_when_asked(pictures: Path) -> None:
    (pictures / "2.jpg").write_bytes(b"")
    (pictures / "late/1.png").write_bytes((pictures / "1.png").read_bytes()[:60])
    told: list[ImageReadError] = []
    source = open_source(str(pictures), on_unreadable=told.append)
    frames = list(source.frames(threading.Event()))
    assert [frame.index for frame in frames] == [0, 2, 4]  # the gaps show what is missing
    assert source.skipped_unreadable == 2
    assert ["2.jpg" in str(told[0]), "late/1.png" in str(told[1])] == [True, True]


def test_an_empty_folder_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceOpenError, match=r"holds no picture: expected .*\.png"):
        open_source(str(tmp_path))


def test_a_missing_path_is_an_error_that_names_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(SourceOpenError, match=r"gone does not exist.*rtsp://.*test://"):
        open_source(str(tmp_path / "gone"))


def test_pictures_of_every_mode_are_frames(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), ramp)
    cv2.imwrite(str(tmp_path / "deep.png"), ramp.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "rgba.png"), cv2.cvtColor(ramp, cv2.COLOR_GRAY2BGRA))
    expected = cv2.cvtColor(ramp, cv2.COLOR_GRAY2BGR)
    for frame in read_all(str(tmp_path)):
        np.testing.assert_array_equal(frame.image, expected)


def test_natural_order_counts_and_never_ties_different_names() -> None:
    names = ["a10", "a9", "b", "A9", "a09", "7", "x/2", "x/10", "", "²"]
    ordered = sorted(names, key=natural_key)
    assert ordered.index("a9") < ordered.index("a10")
    assert ordered.index("x/2") < ordered.index("x/10")
    assert len({repr(natural_key(name)) for name in names}) == len(names)


def test_a_folder_of_nothing_but_unreadable_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("no picture")
    source = PictureSource(tmp_path, on_unreadable=lambda error: None)
    with pytest.raises(SourceError, match="none of the 1 pictures"):
        list(source.frames(threading.Event()))
