"""Locks of classes and graphs, with another process that holds them and dies."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from patchline.export.fleet import recorded
from patchline.export.making.locks import class_lock, graph_lock
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.tracking.base import NoTracker
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import staged_files
from patchline.runtime.progress import SilentSteps

from ..drawn import CLASS_NAME, settings_with
from .jobs import job_of, output_in

HOLD = """
import sys, time
from pathlib import Path
from patchline.export.making.locks import class_lock
with class_lock(Path(sys.argv[1]), "bottle"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with (
                pytest.raises(ConfigurationError, match=rf"process {other.pid} on .*, since 2"),
                class_lock(tmp_path, "bottle"),
            ):
                pass
            with class_lock(tmp_path, "pill"):  # another class
                pass
        finally:
            other.kill()
    with class_lock(tmp_path, "bottle"):
        pass


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), class_lock(tmp_path, "bottle"):
        raise RuntimeError
    with class_lock(tmp_path, "bottle"):
        pass


def test_a_graph_is_waited_for_unless_it_is_there(tmp_path: Path) -> None:
    settings, seen = settings_with(bank="external"), list[str]()

    def second() -> None:
        with graph_lock(tmp_path, settings):
            seen.append("second")

    with graph_lock(tmp_path, settings):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        assert seen == []
        for ending in ("onnx", "json"):
            (tmp_path / f"resnet18-64.{ending}").touch()
        with graph_lock(tmp_path, settings):  # it is there: nobody waits
            seen.append("first")
    waiting.join(30)
    assert seen == ["first", "second"]


def test_a_bank_in_its_graph_shares_nothing(tmp_path: Path) -> None:
    with graph_lock(tmp_path, settings_with()), graph_lock(tmp_path, settings_with()):
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_fit_left_goes_before_the_next_one(
    drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []

    def make_class(*given: object, **named: object) -> None:
        with staged_files(tmp_path) as stage:
            left.append(stage)
        raise ZeroDivisionError

    monkeypatch.setattr(recorded, "make_class", make_class)
    job, steps = job_of(drawn_data, CLASS_NAME), TimedSteps(SilentSteps())
    with pytest.raises(ZeroDivisionError):
        recorded.make_recorded(job, output_in(tmp_path), steps, NoTracker())
    left[0].mkdir()  # as if the process had been killed
    with class_lock(tmp_path, "bottle"):
        assert left[0].exists()
    with class_lock(tmp_path, CLASS_NAME):
        assert not left[0].exists()
