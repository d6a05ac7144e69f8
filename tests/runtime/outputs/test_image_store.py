"""The image store: names, limits, and what it never deletes."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.image_file import read_image
from patchline.runtime.outputs import store_index
from patchline.runtime.outputs.image_store import ImageStore, StoreSettings
from patchline.runtime.outputs.store_index import StoreIndex

from ..fakes import NOON, FakeClock, gray
from .given import event, frame, state


class DayClock(FakeClock):
    def __init__(self, now: datetime = NOON) -> None:
        super().__init__()
        self.today = now

    def now(self) -> datetime:
        return self.today


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def bad(index: int = 0, **options: Any) -> Any:
    return frame(index, score=300.0, **options)


def test_an_anomalous_frame_is_kept_with_its_verdict(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (480, 640, 3)))
    store = ImageStore(tmp_path)
    store.write(bad(7, camera="left", image=image))
    store.write(frame(8))
    store.notify(state())
    store.close()
    stem = "left/2024-05-17/120000_000_000007_300.000"
    assert files(tmp_path) == [f"{stem}.jpg", f"{stem}.json"]
    assert np.abs(read_image(tmp_path / f"{stem}.jpg").astype(int) - image).max() < 4
    document = json.loads((tmp_path / f"{stem}.json").read_text())
    assert (document["frame"], document["anomalous"], document["camera"]) == (7, True, "left")
    assert (document["width"], document["height"]) == (640, 480)


def test_png_holds_the_very_pixels_that_were_judged(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 65535, (48, 64), np.uint16)
    store = ImageStore(tmp_path, StoreSettings(picture_format="png", has_annotated=True))
    store.write(bad(image=image))
    raw, annotated = (tmp_path / name for name in files(tmp_path) if name.endswith(".png"))
    if ".annotated" in raw.name:
        raw, annotated = annotated, raw
    np.testing.assert_array_equal(cv2.imread(str(raw), cv2.IMREAD_UNCHANGED), image)
    assert read_image(annotated).shape == (48, 64, 3)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4)])
@pytest.mark.parametrize("picture_format", ["jpg", "png"])
def test_frames_of_any_kind_are_kept(
    tmp_path: Path, shape: tuple[int, ...], picture_format: str
) -> None:
    store = ImageStore(tmp_path, StoreSettings(picture_format=picture_format))
    store.write(bad(image=np.full(shape, 90, np.uint8)))
    assert len(files(tmp_path)) == 2


def test_every_nth_good_frame_of_each_camera(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, StoreSettings(good_every=3))
    for index in range(7):
        store.write(frame(index, camera="left"))
        store.write(frame(index, camera="right"))
        store.write(bad(100 + index, camera="left"))
    good = [name for name in files(tmp_path) if name.endswith("_good.jpg")]
    assert [(name.split("/")[0], name.split("_")[2]) for name in good] == [
        ("left", "000002"),
        ("left", "000005"),
        ("right", "000002"),
        ("right", "000005"),
    ]


def test_only_the_annotated_picture(tmp_path: Path) -> None:
    ImageStore(tmp_path, StoreSettings(has_raw=False, has_annotated=True)).write(bad())
    assert [name.split(".", 2)[2] for name in files(tmp_path)] == ["annotated.jpg", "json"]


def test_an_events_picture_is_kept_where_its_frame_was_lost_and_not_twice(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.write(bad(1))
    store.notify(event(peak=bad(1)))
    store.notify(event(peak=bad(2)))
    store.notify(event(peak=frame(3)))  # a drift: no single frame is anomalous
    store.notify(event())
    assert [name.split("_")[2] for name in files(tmp_path)] == ["000001"] * 2 + ["000002"] * 2


@settings(max_examples=30, deadline=None)
@given(
    times_s=st.lists(st.integers(0, 40), min_size=1, max_size=25, unique=True),
    most_records=st.integers(1, 6),
    restarts=st.sets(st.integers(0, 24), max_size=3),
)
def test_the_size_limit_keeps_the_newest_over_restarts(
    tmp_path_factory: pytest.TempPathFactory,
    times_s: list[int],
    most_records: int,
    restarts: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("store")
    image = gray(90)
    probe = ImageStore(folder / "probe")
    probe.write(bad(10, image=image))
    size = sum(path.stat().st_size for path in (folder / "probe").rglob("*.*"))
    most_bytes = most_records * size
    store = ImageStore(folder / "real", StoreSettings(most_bytes=most_bytes))
    held: list[int] = []
    for number, time_s in enumerate(times_s):
        if number in restarts:
            store = ImageStore(folder / "real", StoreSettings(most_bytes=most_bytes))
        time = NOON + timedelta(seconds=time_s)
        store.write(bad(10 + number, image=image, time=time, camera=f"c{number % 2}"))
        while len(held) >= most_records:
            held.remove(min(held))
        held.append(time_s)
        names = [name for name in files(folder / "real") if name.endswith(".jpg")]
        found = [datetime.strptime(name.split("/")[2][:6], "%H%M%S") for name in names]
        assert sorted((t.minute * 60 + t.second) for t in found) == sorted(held)
        index = store._index
        assert index is not None
        real_bytes = sum(p.stat().st_size for p in (folder / "real").rglob("*") if p.is_file())
        assert index.total_bytes == real_bytes <= most_bytes


def test_old_records_go_also_while_only_good_frames_come(tmp_path: Path) -> None:
    clock = DayClock()
    store = ImageStore(tmp_path, StoreSettings(most_days=2), clock=clock)
    store.write(bad(1))
    store.write(bad(2, time=NOON + timedelta(days=1)))
    clock.today = NOON + timedelta(days=2, seconds=1)
    store.write(frame(3))
    assert [name.split("/")[1] for name in files(tmp_path)] == ["2024-05-18"] * 2
    assert [path.name for path in (tmp_path / "camera1").iterdir()] == ["2024-05-18"]
    clock.today = NOON + timedelta(days=9)
    store.write(frame(4))
    assert files(tmp_path) == []


def test_only_files_of_its_own_form_are_ever_deleted(tmp_path: Path) -> None:
    day = tmp_path / "camera1/2024-05-17"
    day.mkdir(parents=True)
    mine = day / "110000_000_000001_300.000.jpg"
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"x" * 1000)
    kept = [
        tmp_path / "110000_000_000001_300.000.jpg",
        tmp_path / "camera1/110000_000_000001_300.000.jpg",
        tmp_path / "camera1/notes/110000_000_000001_300.000.jpg",
        tmp_path / "camera1/2024-99-17/110000_000_000001_300.000.jpg",
        day / "holiday.jpg",
        day / "110000_000_000001_300.000.jpg.bak",
        day / "990000_000_000001_300.000.jpg",
        day / "deep/110000_000_000001_300.000.jpg",
    ]
    for path in (mine, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100_000)
    link = day / "110001_000_000001_300.000.jpg"
    link.symlink_to(outside)
    (day / ".110000_000_000001_300.000.jpg.part").write_bytes(b"half")
    store = ImageStore(tmp_path, StoreSettings(most_bytes=50_000))
    store.write(bad(2))
    assert not mine.exists()
    assert all(path.exists() for path in kept)
    assert link.is_symlink()
    assert outside.stat().st_size == 1000
    assert not list(day.glob("*.part"))


def test_files_that_others_deleted_are_no_trouble(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, StoreSettings(most_bytes=8000))
    store.write(bad(1))
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            path.unlink()
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir()
    for index in range(2, 30):
        store.write(bad(index, time=NOON + timedelta(seconds=index)))
    names = files(tmp_path)
    assert names[-1].split("_")[2] == "000029"
    assert sum((tmp_path / name).stat().st_size for name in names) <= 8000


def test_the_folder_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[Any] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: walks.append(path) or scandir(path))  # type: ignore[func-returns-value]
    store = ImageStore(tmp_path, StoreSettings(most_bytes=5000))
    assert walks == []  # not before the thread runs that may wait for it
    for index in range(20):
        store.write(bad(index, time=NOON + timedelta(seconds=index)))
    assert walks == [tmp_path]


def test_a_lowered_limit_does_not_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path)
    for index in range(12):
        store.write(bad(index, time=NOON + timedelta(seconds=index)))
    monkeypatch.setattr("patchline.runtime.outputs.image_store.MOST_DELETED_AT_ONCE", 5)
    store = ImageStore(tmp_path, StoreSettings(most_bytes=1))
    counts = []
    for _ in range(3):
        store.write(frame())
        counts.append(len(files(tmp_path)) // 2)
    assert counts == [7, 2, 0]


def test_a_limit_smaller_than_one_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"may hold 10 bytes, and one frame takes \d+"):
        ImageStore(tmp_path, StoreSettings(most_bytes=10)).write(bad())
    assert files(tmp_path) == []


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:5])
        raise OSError(errno.ENOSPC, "full")

    store = ImageStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match="the disk is full"):
            store.write(bad())
    assert files(tmp_path) == []
    store.write(bad())
    assert len(files(tmp_path)) == 2


def test_what_cannot_be_deleted_is_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageStore(tmp_path).write(bad())
    index = StoreIndex(tmp_path)
    before = index.total_bytes

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        index.delete_oldest()
    assert (index.total_bytes, len(index)) == (before, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"good_every": -1},
        {"most_bytes": 0},
        {"most_days": 0.0},
        {"most_days": float("nan")},
        {"picture_format": "bmp"},
        {"has_raw": False},
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="the image store"):
        StoreSettings(**values)


def test_the_names_that_are_written_are_those_that_are_found(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, StoreSettings(good_every=1, has_annotated=True))
    for index, score in ((0, -1.5), (12_345_678, 1e9), (3, 0.0)):
        store.write(frame(index, score=score))
    assert len(StoreIndex(tmp_path)) == 3
    assert all(name.endswith(store_index.SUFFIXES) for name in files(tmp_path))
