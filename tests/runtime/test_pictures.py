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


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["1.png", "10.png"]),
        ("*", ["1.png", "2.jpg", "10.png"]),
        ("?.*", ["1.png", "2.jpg"]),
        ("[!2]*", ["1.png", "10.png"]),
        ("*/*", ["late/1.png", "late/2.bmp"]),
        ("l*e/2.bmp", ["late/2.bmp"]),
        ("**/1.png", ["1.png", "late/1.png"]),
        ("**", ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]),
        ("**/**/*.png", ["1.png", "10.png", "late/1.png"]),
    ],
)
@pytest.mark.parametrize("start", ["", "file://"])
def test_a_pattern_gives_its_pictures_in_natural_order(
    pictures: Path, pattern: str, names: list[str], start: str
) -> None:
    (pictures / "notes.txt").write_text("no picture")
    (pictures / ".hidden.png").write_bytes((pictures / "1.png").read_bytes())
    source = open_source(f"{start}{pictures}/{pattern}")
    assert source.path == pictures
    frames = list(source.frames(threading.Event()))
    assert [frame.file for frame in frames] == names
    assert [frame.index for frame in frames] == list(range(len(names)))


def test_a_pattern_means_what_pathlib_means_by_it(tmp_path: Path) -> None:
    """Against an independent reference, on a tree of folders three deep."""
    folders = ["", "a", "a/b", "a/b/c", "ab", "b/a"]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("a.png", "ab.png", "b1.png", "b.txt"):
            cv2.imwrite(str(tmp_path / folder / "x.png"), gray(1))
            (tmp_path / folder / "x.png").rename(tmp_path / folder / name)
    for pattern in ("*.png", "a*/*.png", "**/a.png", "a/**/b?.png", "**/a/*.png", "*/b/[ab]*.png"):
        expected = {path for path in tmp_path.glob(pattern) if path.suffix == ".png"}
        frames = open_source(f"{tmp_path}/{pattern}").frames(threading.Event())
        found = open_source(f"{tmp_path}/{pattern}")._files
        assert (set(found), len(found)) == (expected, len(expected)), pattern
        assert len(list(frames)) == len(expected)


def test_a_relative_pattern_starts_here(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    assert [frame.file for frame in read_all("*.png")] == ["1.png", "10.png"]


def test_a_name_with_wildcards_that_exists_is_taken_as_it_is(pictures: Path) -> None:
    (pictures / "1.png").rename(pictures / "[1].png")
    assert [frame.file for frame in read_all(f"{pictures}/[1].png")] == ["[1].png"]
    late = (pictures / "late").rename(pictures / "la*te")
    assert [frame.file for frame in read_all(str(late))] == ["1.png", "2.bmp"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.txt", r"names 1 files and no picture among them: expected files ending in .*\.png"),
        ("*.gone", "names 0 files"),
        ("gone/*.png", "cannot list .*gone: No such file"),
    ],
)
def test_a_pattern_without_pictures_is_an_error(pictures: Path, pattern: str, message: str) -> None:
    (pictures / "notes.txt").write_text("no picture")
    with pytest.raises(SourceOpenError, match=message):
        open_source(f"{pictures}/{pattern}")


def test_a_pattern_does_not_follow_links_around_in_circles(pictures: Path) -> None:
    (pictures / "late" / "round").symlink_to(pictures)
    assert [frame.file for frame in read_all(f"{pictures}/**/2.bmp")] == ["late/2.bmp"]
