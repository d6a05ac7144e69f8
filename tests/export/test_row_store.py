"""Rows in memory and rows on disk behave alike, and a full disk is told at once."""

from __future__ import annotations

import errno
import io
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.export.backbone import PatchEmbedder
from patchline.export.features import extract_features
from patchline.export.row_store import RowStore
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import WriteError

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@pytest.fixture(params=["memory", "disk"])
def spill(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "disk" else None


def numbered(count: int, dimension: int = 3, start: int = 0) -> torch.Tensor:
    values = torch.arange(start * dimension, (start + count) * dimension, dtype=torch.float32)
    return values.view(count, dimension)


def test_rows_come_back_as_they_were_added(spill: Path | None) -> None:
    store = RowStore(10, 3, spill)
    assert store.on_disk == (spill is not None)
    assert len(store) == 0
    for first, count in ((0, 4), (4, 1), (5, 5)):
        store.append(numbered(count, start=first))
    assert len(store) == 10
    assert torch.equal(store.read(0, 10), numbered(10))
    assert torch.equal(store.read(3, 7), numbered(4, start=3))
    assert store.read(4, 4).shape == (0, 3)
    assert store.read(0, 10).dtype == torch.float32
    store.close()


def test_what_is_read_ends_with_the_rows(spill: Path | None) -> None:
    """Fewer rows than there is room for: pictures were left out."""
    store = RowStore(100, 3, spill)
    store.append(numbered(4))
    assert len(store) == 4
    assert torch.equal(store.read(2, 90), numbered(2, start=2))
    assert store.read(50, 60).shape == (0, 3)
    with pytest.raises(IndexError, match="4 rows"):
        store.gather(torch.tensor([0, 4]))
    with pytest.raises(IndexError, match="4 rows"):
        store.gather(torch.tensor([-1]))
    store.close()


def test_gather_keeps_the_order_and_repeats(spill: Path | None) -> None:
    store = RowStore(20, 3, spill)
    store.append(numbered(20))
    indices = torch.tensor([7, 0, 19, 7, 3])
    assert torch.equal(store.gather(indices), numbered(20)[indices])
    assert store.gather(torch.tensor([], dtype=torch.int64)).shape == (0, 3)
    store.close()


def test_adding_goes_on_after_reading(spill: Path | None) -> None:
    store = RowStore(6, 3, spill)
    store.append(numbered(3))
    assert torch.equal(store.read(0, 1), numbered(1))
    store.append(numbered(3, start=3))
    assert torch.equal(store.read(0, 6), numbered(6))
    store.close()


def test_rows_of_any_layout_are_kept(spill: Path | None) -> None:
    store = RowStore(4, 3, spill)
    transposed = numbered(3, dimension=4).t()
    assert not transposed.is_contiguous()
    store.append(transposed.requires_grad_())
    assert torch.equal(store.read(0, 4), transposed.detach())
    store.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 6), st.data())
def test_memory_and_disk_are_alike(counts: list[int], dimension: int, data: st.DataObject) -> None:
    total = sum(counts)
    folder = Path(tempfile.gettempdir())
    with (
        closing(RowStore(total, dimension)) as memory,
        closing(RowStore(total, dimension, folder)) as disk,
    ):
        for count in counts:
            block = torch.randn(count, dimension)
            memory.append(block)
            disk.append(block)
        assert len(memory) == len(disk) == total
        start, stop = (data.draw(st.integers(0, total + 3)) for _ in range(2))
        assert torch.equal(memory.read(start, stop), disk.read(start, stop))
        picks = data.draw(st.lists(st.integers(0, total - 1))) if total else []
        indices = torch.tensor(picks, dtype=torch.int64)
        assert torch.equal(memory.gather(indices), disk.gather(indices))


def test_a_store_on_disk_holds_no_rows_in_memory(tmp_path: Path) -> None:
    store = RowStore(1000, 50, tmp_path)
    store.append(torch.zeros(1000, 50))
    held = [value.nbytes for value in vars(store).values() if hasattr(value, "nbytes")]
    assert sum(held) == 0
    store.close()


def test_the_file_has_no_name_and_leaves_nothing(tmp_path: Path) -> None:
    store = RowStore(10, 3, tmp_path)
    store.append(numbered(10))
    assert list(tmp_path.iterdir()) == []
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_store_says_so(spill: Path | None) -> None:
    store = RowStore(10, 3, spill)
    store.append(numbered(4))
    store.close()
    store.close()
    for use in (
        lambda: store.read(0, 1),
        lambda: store.gather(torch.tensor([0])),
        lambda: store.append(numbered(1)),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_more_rows_than_there_is_room_for_are_refused(spill: Path | None) -> None:
    store = RowStore(5, 3, spill)
    store.append(numbered(4))
    with pytest.raises(ValueError, match="6 rows do not fit: there is room for 5"):
        store.append(numbered(2))
    store.append(numbered(1, start=4))
    with pytest.raises(ValueError, match="room for 5"):
        store.append(numbered(1))
    assert torch.equal(store.read(0, 9), numbered(5))
    store.close()


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(2, 4),
        torch.zeros(2, 1),
        torch.zeros(3),
        torch.zeros(2, 3, dtype=torch.float64),
        torch.zeros(2, 3, dtype=torch.int32),
    ],
    ids=["wider", "one column", "1-d", "float64", "int32"],
)
def test_rows_of_another_kind_are_refused(spill: Path | None, rows: torch.Tensor) -> None:
    store = RowStore(5, 3, spill)
    with pytest.raises(ValueError, match=r"expected float32 rows \[n, 3\]"):
        store.append(rows)
    assert len(store) == 0
    store.close()


class FullAfter(io.FileIO):
    """A file on a disk with room for a few bytes more: short writes, then none."""

    room = 0

    def write(self, content: Any) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(len(content), self.room)
        self.room -= taken
        return super().write(content[:taken])


def on_a_disk_with_room(
    monkeypatch: pytest.MonkeyPatch, folder: Path, room_bytes: int
) -> FullAfter:
    file = FullAfter(folder / "disk", "w+")
    file.room = room_bytes
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: file)
    return file


def test_a_full_disk_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = on_a_disk_with_room(monkeypatch, tmp_path, room_bytes=5 * 12 + 7)
    store = RowStore(10, 3, tmp_path)
    store.append(numbered(5))
    with pytest.raises(WriteError, match=f"{tmp_path}.*disk is full"):
        store.append(numbered(3, start=5))
    # What was there is there still, and half a row is not.
    assert len(store) == 5
    assert torch.equal(store.read(0, 9), numbered(5))
    file.room = 10**6
    store.append(numbered(3, start=5))
    assert torch.equal(store.read(0, 9), numbered(8))
    store.close()


def test_short_writes_go_on_where_they_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Slow(FullAfter):
        def write(self, content: Any) -> int:
            self.room = 5
            return super().write(content)

        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    file = Slow(tmp_path / "disk", "w+")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: file)
    store = RowStore(10, 3, tmp_path)
    store.append(numbered(10))
    assert torch.equal(store.read(0, 10), numbered(10))
    store.close()


@needs_dev_full
def test_a_really_full_disk_shows_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However small the block: not later, when rows are read or the file is closed."""

    def full(mode: str = "w+b", buffering: int = -1, **_: Any) -> Any:
        return open("/dev/full", mode, buffering)  # noqa: PTH123

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    store = RowStore(10, 3, tmp_path)
    with pytest.raises(WriteError, match="disk is full"):
        store.append(numbered(1))
    store.close()


def test_a_spill_folder_that_cannot_be_written_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(WriteError, match=f"{tmp_path}.*permission denied"):
        RowStore(10, 3, tmp_path)


def test_a_fit_that_fails_frees_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unreadable picture, or Ctrl-C, in the middle of the embedding."""
    opened: list[Any] = []
    make = tempfile.TemporaryFile

    def watched(*args: Any, **options: Any) -> Any:
        opened.append(make(*args, **options))
        return opened[-1]

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    picture = tmp_path / "good.png"
    assert cv2.imwrite(str(picture), np.zeros((32, 32, 3), np.uint8))
    embedder = PatchEmbedder("test_resnet", ModelSize(height=32, width=32), "random")
    with pytest.raises(KeyboardInterrupt):
        extract_features(
            (picture,),
            embedder,
            batch_size=1,
            seed=0,
            spill=tmp_path,
            advance=interrupt,
        )
    assert [file.closed for file in opened] == [True]
