"""Files are whole or not there, whatever the disk does."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime import files
from patchline.runtime.errors import WriteError
from patchline.runtime.files import (
    clear_stages,
    named_stages,
    sha256_of_file,
    staged_files,
    write_atomically,
)
from tests.programs import run_program


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(3 << 20) + b"x"
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_staged_files_appear_together_and_replace_their_namesakes(tmp_path: Path) -> None:
    folder = tmp_path / "new/models"
    with staged_files(folder) as stage:
        (stage / "a").write_text("1")
        (stage / "b").write_text("2")
        assert [path for path in folder.iterdir() if path != stage] == []
    write_atomically(folder / "a", b"3")
    assert names(folder) == ["a", "b"]
    assert (folder / "a").read_text() == "3"


def test_a_stage_that_was_left_is_known_by_its_name(tmp_path: Path) -> None:
    left = []
    for name in ("lid", "lid-small", "lid"):
        with named_stages(name), staged_files(tmp_path) as stage:
            left.append(stage)
    for stage in left:
        stage.mkdir()
        (stage / "half").touch()
    clear_stages(tmp_path, "lid")
    assert names(tmp_path) == [left[1].name]
    clear_stages(tmp_path / "nowhere", "lid")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, MemoryError])
def test_any_exception_leaves_the_old_files_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), staged_files(tmp_path) as stage:
        (stage / "a").write_text("new")
        raise error
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
    ],
)
def test_a_refusal_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WriteError, match=reason):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_disk_that_fills_up_at_the_last_moment_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(WriteError, match="the disk is full"):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_an_error_that_has_nothing_to_do_with_writing_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_files(tmp_path):
        (tmp_path / "gone").read_bytes()


LIMITED = """
import resource, sys
from pathlib import Path
from patchline.runtime.errors import WriteError
from patchline.runtime.files import write_atomically

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), bytes(5000))
except WriteError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are POSIX")
def test_a_real_limit_of_the_system_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lamp.onnx"
    path.write_text("old")
    done = run_program(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True
    )
    assert "larger than this system allows" in done.stdout
    assert names(tmp_path) == ["lamp.onnx"]
    assert path.read_text() == "old"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_write_permission_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(WriteError, match="permission denied"):
            write_atomically(tmp_path / "a", b"new")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_way_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(WriteError, match=r"in the way|not a folder"):
            write_atomically(folder / "a", b"new")


def test_a_folder_in_the_way_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(WriteError, match="in the way"):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("stage_is_interrupted_at", [1, 2])
def test_an_interrupt_between_the_renames_brings_all_old_files_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_is_interrupted_at: int
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    replace, moved = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        if len(moved) == stage_is_interrupted_at:
            moved.append("interrupt")
            raise KeyboardInterrupt
        moved.append(self.name)
        return replace(self, target)

    with pytest.raises(KeyboardInterrupt), staged_files(tmp_path) as stage:
        for name in ("a", "b", "c"):
            (stage / name).write_text("new")
        monkeypatch.setattr(Path, "replace", interrupted)
    assert names(tmp_path) == ["a", "b"]
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["old", "old"]


def test_a_folder_in_the_way_of_the_last_file_changes_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(WriteError, match="in the way"), staged_files(tmp_path) as stage:
        (stage / "a").write_text("new")
        (stage / "b").write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a", "b"]


def test_without_hard_links_old_files_are_kept_as_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(files.os, "link", refuse)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_place_that_cannot_be_written_is_a_sentence_whatever_the_reason(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="cannot write to"):
        files.check_writable(tmp_path / ("x" * 300))
    files.check_writable(tmp_path / "new")
    assert names(tmp_path) == ["new"]
