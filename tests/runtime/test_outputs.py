"""JSON lines, annotated pictures and videos, the live view."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.runtime.camera.open import open_source
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.image_file import read_image
from patchline.runtime.outputs import video as video_module
from patchline.runtime.outputs.annotated import (
    AnnotatedPictures,
    open_annotated_output,
    open_annotated_outputs,
)
from patchline.runtime.outputs.base import OutputClosedError, OutputEndedError
from patchline.runtime.outputs.caption import ANOMALOUS_COLOR, GOOD_COLOR
from patchline.runtime.outputs.jsonl import JsonLines
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.outputs.queued import QueuedOutput
from patchline.runtime.outputs.video import AnnotatedVideo, fit
from patchline.runtime.outputs.window import Window
from patchline.runtime.verdict import JudgedFrame, map_threshold

from .fakes import FakeSource, gray, judged_frame
from .tiny_model import THRESHOLD, make_manifest


def spot_map(peak: float, background: float = 20.0) -> np.ndarray:
    """A map with one anomalous square in the lower right."""
    anomaly_map = np.full((32, 32), background, np.float32)
    anomaly_map[20:26, 20:26] = peak
    return anomaly_map


# JSON lines


def test_a_line_holds_what_the_issue_promises() -> None:
    file = io.StringIO()
    JsonLines(file).write(judged_frame(gray(1), score=250.5, index=7, file="a/ä.png"))
    (line,) = file.getvalue().splitlines()
    assert line.startswith('{"type": "frame"')
    assert json.loads(line) == {
        "type": "frame",
        "time": "2024-05-17T12:00:00.000+02:00",
        "camera": "camera1",
        "class": "lamp",
        "source": "a fake",
        "frame": 7,
        "file": "a/ä.png",
        "score": 250.5,
        "threshold": THRESHOLD,
        "anomalous": True,
        "ms": {
            "read": 1.5,
            "wait": 0.25,
            "preprocess": 2.0,
            "infer": 3.0,
            "output": 4.0,
            "total": 9.0,
        },
    }
    assert datetime.fromisoformat(json.loads(line)["time"]).tzinfo is not None


def test_only_pictures_have_a_file_and_every_line_is_flushed() -> None:
    class Counting(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    file = Counting()
    lines = JsonLines(file)
    for index in range(3):
        lines.write(judged_frame(gray(1), index=index))
    assert [json.loads(line)["frame"] for line in file.getvalue().splitlines()] == [0, 1, 2]
    assert "file" not in json.loads(file.getvalue().splitlines()[0])
    assert file.flushes == 3


def test_a_line_is_never_nan() -> None:
    file = io.StringIO()
    with pytest.raises(ValueError, match="Out of range float"):
        JsonLines(file).write(judged_frame(gray(1), score=float("nan")))
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(BrokenPipeError(32, "broken"), OutputClosedError), (OSError(5, "I/O error"), WriteError)],
)
def test_a_refused_line_is_an_end_or_an_error(refusal: OSError, error: type[Exception]) -> None:
    class Refusing(io.StringIO):
        def flush(self) -> None:
            raise refusal

    with pytest.raises(error):
        JsonLines(Refusing()).write(judged_frame(gray(1)))


# The picture


@pytest.mark.parametrize("size", [(64, 64), (48, 640), (480, 640), (640, 64), (2160, 3840)])
def test_an_annotated_picture_has_the_frames_own_size(size: tuple[int, int]) -> None:
    image = gray(90, *size)
    picture = annotate(judged_frame(image, spot_map(400.0), score=400.0))
    assert (picture.shape, picture.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, gray(90, *size))  # the frame itself is not drawn on


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_even_a_sliver_can_be_annotated(size: tuple[int, int]) -> None:
    assert annotate(judged_frame(gray(90, *size))).shape == (*size, 3)


@pytest.mark.parametrize("size", [(64, 64), (200, 300), (2160, 3840)])
@pytest.mark.parametrize(("score", "color"), [(100.0, GOOD_COLOR), (300.0, ANOMALOUS_COLOR)])
def test_border_and_banner_show_the_verdict_at_every_size(
    size: tuple[int, int], score: float, color: tuple[int, int, int]
) -> None:
    picture = annotate(judged_frame(gray(90, *size), score=score))
    for corner in (picture[0, 0], picture[-1, -1]):
        assert tuple(corner) == color
    text = (picture[: size[0] // 3] > 180).all(axis=2)
    assert text.any(axis=0).sum() > 20  # light strokes on the banner


def test_a_good_part_stays_as_it_is_below_the_banner() -> None:
    image = gray(90, 480, 640)
    noisy = np.random.default_rng(0).uniform(0, 0.74 * THRESHOLD, (32, 32)).astype(np.float32)
    picture = annotate(judged_frame(image, noisy))
    np.testing.assert_array_equal(picture[60:-10, 10:-10], image[60:-10, 10:-10])


def test_a_defect_glows_where_it_is_and_nowhere_else() -> None:
    image = gray(90, 320, 320)
    picture = annotate(judged_frame(image, spot_map(2 * THRESHOLD), score=400.0))
    blue, _, red = (int(value) for value in picture[230, 230])
    assert red > 140 > 60 > blue
    np.testing.assert_array_equal(picture[60:180, 10:180], image[60:180, 10:180])


def test_the_colours_mean_the_same_on_every_picture() -> None:
    def color_at_spot(background: float) -> list[int]:
        judged = judged_frame(gray(90, 320, 320), spot_map(250.0, background))
        return [int(value) for value in annotate(judged)[230, 230]]

    assert color_at_spot(0.0) == color_at_spot(140.0)


def test_the_contour_is_where_the_map_reaches_the_threshold() -> None:
    def has_contour(peak: float) -> bool:
        judged = judged_frame(gray(90, 320, 320), spot_map(peak))
        return bool((annotate(judged)[60:-5, 5:-5] > 200).all(axis=2).any())

    assert has_contour(THRESHOLD + 1)
    assert not has_contour(THRESHOLD - 1)


@pytest.mark.parametrize("map_value", [0.0, -5.0])
def test_a_map_threshold_that_is_not_positive_does_not_crash(map_value: float) -> None:
    annotate(judged_frame(gray(90), spot_map(1.0, 0.0), map_value=map_value))


def test_frames_of_any_kind_are_annotated() -> None:
    kinds: tuple[Any, ...] = (
        np.full((64, 80), 9, np.uint8),
        np.full((64, 80, 4), 9, np.uint8),
        np.full((64, 80), 9 * 257, np.uint16),
    )
    for image in kinds:
        assert annotate(judged_frame(image)).shape == (64, 80, 3)


def test_the_map_threshold_moves_with_the_threshold() -> None:
    threshold = make_manifest().threshold.model_copy(update={"value": 4.0, "map_value": 3.0})
    assert map_threshold(threshold, None) == 3.0
    assert map_threshold(threshold, 8.0) == 6.0
    assert map_threshold(threshold.model_copy(update={"value": 0.0}), 8.0) == 3.0


# Folders of pictures


def test_pictures_keep_name_sub_folder_and_format(pictures: Path, tmp_path: Path) -> None:
    source = open_source(str(pictures))
    output = open_annotated_output(tmp_path / "out", source)
    for frame in source.frames(threading.Event()):
        output.write(judged_frame(frame.image, index=frame.index, file=frame.file))
    output.close()
    written = {path.relative_to(tmp_path / "out").as_posix() for path in _files(tmp_path / "out")}
    assert written == {"1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"}
    for path in _files(tmp_path / "out"):
        assert read_image(path).shape == (48, 64, 3)


def test_frames_of_a_camera_are_numbered(tmp_path: Path) -> None:
    output = open_annotated_output(tmp_path / "a/b", FakeSource([]))
    output.write(judged_frame(gray(9), index=12))
    assert read_image(tmp_path / "a/b/frame_000012.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("output", ["pictures", "pictures/out", "pictures/late/x.mp4"])
def test_an_output_in_the_source_is_refused(pictures: Path, output: str) -> None:
    with pytest.raises(ConfigurationError, match="lies in the source"):
        open_annotated_output(pictures.parent / output, open_source(str(pictures)))


def test_an_output_over_a_single_picture_is_refused(pictures: Path) -> None:
    source = open_source(str(pictures / "1.png"))
    with pytest.raises(ConfigurationError, match="lies in the source"):
        open_annotated_output(pictures, source)


def test_an_output_over_the_source_video_is_refused(make_video: Callable[..., Path]) -> None:
    path = make_video()
    alias = path.with_name("alias.avi")
    alias.hardlink_to(path)
    for target in (path, alias):
        with pytest.raises(ConfigurationError, match="lies in the source"):
            open_annotated_output(target, open_source(str(path)))


def test_a_folder_above_the_source_is_refused(pictures: Path) -> None:
    with pytest.raises(ConfigurationError, match="or above it"):
        open_annotated_output(pictures.parent, open_source(str(pictures)))


def test_a_picture_that_the_source_links_to_is_never_replaced(tmp_path: Path) -> None:
    original = tmp_path / "originals/1.png"
    original.parent.mkdir()
    cv2.imwrite(str(original), gray(1))
    before = original.read_bytes()
    links = tmp_path / "links"
    links.mkdir()
    (links / "1.png").symlink_to(original)
    output = open_annotated_output(original.parent, open_source(str(links)))
    with pytest.raises(WriteError, match="is a picture of the source"):
        output.write(judged_frame(gray(1), file="1.png"))
    assert original.read_bytes() == before


def test_a_link_in_the_output_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/1.png").symlink_to(elsewhere)
    output = AnnotatedPictures(tmp_path / "out", FakeSource([]))
    output.write(judged_frame(gray(1), file="1.png"))
    assert elsewhere.read_bytes() == b"mine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png"]


@pytest.mark.parametrize("name", ["a.mov", "a.png", "a.v2"])
def test_another_kind_of_output_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a video ending in \.mp4, \.avi, \.mkv"):
        open_annotated_output(tmp_path / name, FakeSource([]))


@pytest.mark.parametrize("name", ["file/out", "file/out.mp4"])
def test_an_output_below_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match=r"not a folder|in the way"):
        open_annotated_output(tmp_path / name, FakeSource([]))


def test_a_format_that_cannot_be_encoded_is_an_error(tmp_path: Path) -> None:
    output = AnnotatedPictures(tmp_path / "out", FakeSource([]))
    with pytest.raises(WriteError, match=r"cannot write .*1\.xyz"):
        output.write(judged_frame(gray(1), file="1.xyz"))


# Several cameras


def test_several_cameras_get_a_video_each(tmp_path: Path) -> None:
    slow, fast = FakeSource([], is_live=True), FakeSource([], is_live=True)
    output = open_annotated_outputs(tmp_path / "a.avi", {"left": slow, "right": fast})
    assert _files(tmp_path) == []
    slow.fps, fast.fps = 5.0, 50.0  # known once they run
    for index in range(4):
        output.write(_of_camera("left", index))
        if index % 2:
            output.write(_of_camera("right", index))
    output.close()
    output.close()
    found = {}
    for path in _files(tmp_path):
        capture = cv2.VideoCapture(str(path))
        found[path.name] = (
            capture.get(cv2.CAP_PROP_FRAME_COUNT),
            round(capture.get(cv2.CAP_PROP_FPS)),
        )
    assert found == {"a-left.avi": (4, 5), "a-right.avi": (2, 50)}


def test_several_cameras_get_a_folder_each(tmp_path: Path) -> None:
    cameras = {name: FakeSource([]) for name in ("left", "right")}
    output = open_annotated_outputs(tmp_path / "out", cameras)
    output.write(_of_camera("left", 3))
    output.write(_of_camera("right", 3))
    output.close()
    written = sorted(path.relative_to(tmp_path).as_posix() for path in _files(tmp_path))
    assert written == ["out/left/frame_000003.jpg", "out/right/frame_000003.jpg"]


def test_one_camera_keeps_the_name_that_was_asked_for(tmp_path: Path) -> None:
    output = open_annotated_outputs(tmp_path / "a.avi", {"left": FakeSource([])})
    output.write(_of_camera("left", 0))
    output.close()
    assert [path.name for path in _files(tmp_path)] == ["a.avi"]


def test_what_one_of_several_cameras_reads_is_not_written_over(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    video = open_source(str(make_video("a-left.avi")))
    with pytest.raises(ConfigurationError, match="lies in the source"):
        open_annotated_outputs(tmp_path / "a.avi", {"left": FakeSource([]), "right": video})
    with pytest.raises(ConfigurationError, match="expected a video ending in"):
        open_annotated_outputs(tmp_path / "a.mov", {"l": FakeSource([]), "r": FakeSource([])})


def _of_camera(name: str, index: int) -> JudgedFrame:
    judged = judged_frame(gray(9), index=index)
    return replace(judged, verdict=replace(judged.verdict, camera=name))


# Videos


@pytest.mark.parametrize("name", ["a.mp4", "a.AVI", "sub/a.mkv"])
def test_a_video_holds_every_frame_in_the_first_frames_size(tmp_path: Path, name: str) -> None:
    source = FakeSource([])
    source.fps = 12.5
    output = open_annotated_output(tmp_path / name, source)
    assert _files(tmp_path) == []  # the trial left nothing, and the file comes with a frame
    images: list[Any] = [gray(9, 120, 160), gray(9, 64, 64), np.full((300, 100), 9, np.uint8)]
    for index, image in enumerate(images * 5):
        output.write(judged_frame(image, index=index))
    output.close()
    output.close()
    capture = cv2.VideoCapture(str(tmp_path / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    shapes = []
    while (read := capture.read())[0]:
        shapes.append(read[1].shape)
    assert shapes == [(120, 160, 3)] * 15


def test_a_video_without_frames_is_no_file(tmp_path: Path) -> None:
    AnnotatedVideo(tmp_path / "a.mp4", 25.0).close()
    assert _files(tmp_path) == []


def test_a_codec_that_does_not_open_is_an_error_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(video_module.VIDEO_CODECS, ".mp4", "zzzz")
    with pytest.raises(WriteError, match=r"a\.mp4"):
        AnnotatedVideo(tmp_path / "a.mp4", 25.0)
    assert _files(tmp_path) == []


def test_a_video_that_lost_frames_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = AnnotatedVideo(tmp_path / "a.avi", 25.0)
    output.write(judged_frame(gray(9)))
    monkeypatch.setattr(video_module, "_count_frames", lambda path: 0)
    with pytest.raises(WriteError, match=r"a\.avi holds 0 of 1 frames"):
        output.close()


def test_a_disk_that_fills_up_ends_the_video_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = AnnotatedVideo(tmp_path / "a.avi", 25.0)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputEndedError, match="the disk is full"):
        for index in range(1000):
            output.write(judged_frame(gray(9), index=index))
    output.close()
    assert cv2.VideoCapture(str(tmp_path / "a.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 50


@pytest.mark.parametrize(("is_live", "fps"), [(False, 2.0), (True, 25.0)])
def test_a_source_without_a_pace_is_given_one(tmp_path: Path, is_live: bool, fps: float) -> None:
    source = FakeSource([], is_live=is_live)
    output = open_annotated_output(tmp_path / "a.avi", source)
    output.write(judged_frame(gray(9)))
    output.close()
    found = cv2.VideoCapture(str(tmp_path / "a.avi")).get(cv2.CAP_PROP_FPS)
    assert found == pytest.approx(fps)


def test_fitting_keeps_the_shape_of_the_picture() -> None:
    fitted = fit(gray(200, 100, 50), (100, 100))
    assert fitted.shape == (100, 100, 3)
    assert (fitted[:, 25:75] == 200).all()
    assert (fitted[:, :25] == 0).all()


# The live view


def test_no_display_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ConfigurationError, match=r"no display.*--headless"):
        Window(threading.Event())


def test_an_opencv_without_windows_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:           NONE\n  Media I/O:")
    with pytest.raises(ConfigurationError, match=r"has no windows.*--headless"):
        Window(threading.Event())


def test_a_window_that_does_not_open_ends_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise cv2.error("The function is not implemented")

    _with_windows(monkeypatch)
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    window = Window(threading.Event())
    with pytest.raises(OutputEndedError, match="there is no live view"):
        window.write(judged_frame(gray(9)))
    window.close()


def test_the_window_lives_in_the_thread_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, int] = {}

    def seen(name: str, answer: int = 1) -> Callable[..., int]:
        return lambda *arguments: threads.update({name: threading.get_ident()}) or answer

    _with_windows(monkeypatch)
    for name in ("namedWindow", "imshow", "waitKey", "getWindowProperty", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, seen(name))
    queued = QueuedOutput(Window(threading.Event()), is_lossless=True)
    assert threads == {}
    queued.write(judged_frame(gray(9)))
    queued.close()
    assert len(threads) == 5
    assert len({*threads.values()} - {threading.get_ident()}) == 1


def _with_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:           QT5\n")


@pytest.mark.parametrize(
    ("key", "is_visible", "stops"),
    [("q", 1, True), ("\x1b", 1, True), ("x", 1, False), ("x", 0, True)],
)
def test_q_escape_and_closing_the_window_end_the_run(
    monkeypatch: pytest.MonkeyPatch, key: str, is_visible: int, stops: bool
) -> None:
    shown: list[np.ndarray] = []
    _with_windows(monkeypatch)
    monkeypatch.setattr(cv2, "namedWindow", lambda *arguments: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord(key))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *arguments: is_visible)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    stop = threading.Event()
    window = Window(stop)
    window.write(judged_frame(gray(9)))
    window.close()
    assert (len(shown), stop.is_set()) == (1, stops)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
