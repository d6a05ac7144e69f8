"""The rotated log: limits, whole lines, what a crash or a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.log import LogFile, RotatedLog

from .given import event, frame, state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=40),
    most_bytes=st.integers(1, 100),
    files=st.integers(2, 4),
)
def test_the_newest_lines_are_kept_whole_in_files_within_their_limit(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], most_bytes: int, files: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "line.jsonl"
    log = RotatedLog(path, most_bytes, files)
    lines = [json.dumps({"n": number, "x": "x" * n}) for number, n in enumerate(lengths)]
    for line in lines:
        log.write_line(line)
    log.close()
    log.close()
    found = []
    for number in range(files - 1, -1, -1):
        file = path if number == 0 else path.with_name(f"line.jsonl.{number}")
        if file.exists():
            content = file.read_text().splitlines()
            assert file.stat().st_size <= most_bytes or len(content) == 1
            found.extend(content)
    assert found == lines[len(lines) - len(found) :]
    assert len(list(path.parent.iterdir())) <= files
    if sum(len(line) + 1 for line in lines) <= most_bytes:
        assert found == lines


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a" / "line.jsonl"
    for number in range(3):
        log = RotatedLog(path, 1000)
        log.write_line(json.dumps({"n": number}))
        log.close()
    assert path.read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'


@pytest.mark.parametrize(
    ("left", "mended"),
    [
        ('{"n": 0}\n{"n": 1, "ti', '{"n": 0}\n'),
        ('{"n": 0}\n{"n": 1}', '{"n": 0}\n{"n": 1}\n'),
        ('{"n": 1, "ti', ""),
        ('{"n": 0}\n' + "\0" * 500, '{"n": 0}\n'),
        ('{"n": 0}\n{"n": "' + "x" * 200_000, '{"n": 0}\n'),
        ('{"n": 0}\n7', '{"n": 0}\n'),
        ("\0" * 10, ""),
    ],
)
def test_what_a_crash_left_of_a_line_is_mended(tmp_path: Path, left: str, mended: str) -> None:
    path = tmp_path / "line.jsonl"
    path.write_text(left)
    log = RotatedLog(path)
    log.write_line('{"n": 9}')
    log.close()
    assert path.read_text() == mended + '{"n": 9}\n'


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "line.jsonl"
    log = RotatedLog(path)
    log.write_line('{"n": 0}')
    write = os.write
    calls = iter([3, None])

    def full(descriptor: int, content: bytes) -> int:
        count = next(calls)
        if count is None:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, bytes(content)[:count])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(WriteError, match="the disk is full"):
            log.write_line('{"n": 1}')
    assert path.read_text() == '{"n": 0}\n'
    log.write_line('{"n": 2}')
    log.close()
    assert path.read_text() == '{"n": 0}\n{"n": 2}\n'


def test_a_file_that_was_taken_away_or_emptied_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    log = RotatedLog(path)
    log.write_line('{"n": 0}')
    path.rename(tmp_path / "taken")
    log.write_line('{"n": 1}')
    assert path.read_text() == '{"n": 1}\n'
    path.unlink()
    log.write_line('{"n": 2}')
    os.truncate(path, 0)
    log.write_line('{"n": 3}')
    log.close()
    assert path.read_text() == '{"n": 3}\n'
    assert names(tmp_path) == ["line.jsonl", "taken"]


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "lamp.onnx"
    path.write_bytes(b"\x08\x09 no newline at all")
    with pytest.raises(ConfigurationError, match=r"lamp\.onnx is a file of something else"):
        RotatedLog(path)
    assert path.read_bytes() == b"\x08\x09 no newline at all"
    with pytest.raises(ConfigurationError, match="is a folder"):
        RotatedLog(tmp_path)


@pytest.mark.parametrize(("most_bytes", "files"), [(0, 2), (1, 1)])
def test_limits_that_cannot_be(tmp_path: Path, most_bytes: int, files: int) -> None:
    with pytest.raises(ConfigurationError, match="expected at least 2 files of 1"):
        RotatedLog(tmp_path / "a", most_bytes, files)


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(WriteError, match=r"not a folder|in the way"):
        RotatedLog(tmp_path / "a" / "b")


def test_the_output_writes_all_kinds_and_syncs_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    path = tmp_path / "line.jsonl"
    output = LogFile(RotatedLog(path), str(path))
    output.write(frame())
    output.notify(state())
    assert synced == []
    output.notify(event())
    assert len(synced) == 1
    output.close()
    types = [json.loads(line)["type"] for line in path.read_text().splitlines()]
    assert types == ["frame", "state", "event"]
    only = LogFile(RotatedLog(path), str(path), kinds=("event",))
    only.write(frame())
    only.notify(state())
    only.close()
    assert only.ignores_frames
    assert len(path.read_text().splitlines()) == 3
