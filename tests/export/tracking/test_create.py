"""A tracker that is off loads nothing; one that cannot work says so before the training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from patchline.export.tracking import NoTracker, Tracker, TrackSettings, create_tracker
from patchline.runtime.errors import ConfigurationError, MissingExtraError, WriteError
from tests.programs import run_program

OFF = """
import sys, threading
before = threading.active_count()
from pathlib import Path
from patchline.export.tracking import TrackSettings, create_tracker
with create_tracker(TrackSettings(), "lamp") as tracker:
    tracker.config({"a": 1})
    tracker.log({"loss": 1.0}, step=0)
    tracker.images("examples", {}, step=0)
    tracker.model(Path("none.onnx"), metadata={})
    tracker.summary({"best": 1.0})
print([name for name in ("wandb", "tensorboard", "torch", "PIL") if name in sys.modules])
print(threading.active_count() - before, list(Path().iterdir()))
"""


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own login counts for nothing here."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def test_off_it_loads_nothing_and_writes_nothing(tmp_path: Path) -> None:
    done = run_program(
        [sys.executable, "-c", OFF], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "0 []"]
    assert done.stderr == ""


def test_off_it_is_the_tracker_that_does_nothing() -> None:
    tracker: Tracker = create_tracker(TrackSettings(), "lamp")
    assert isinstance(tracker, NoTracker)


@pytest.mark.parametrize("track", ["wandb", "tensorboard"])
def test_a_missing_extra_gives_the_command(
    track: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    settings = TrackSettings.model_validate({"track": track, "folder": tmp_path})
    with pytest.raises(MissingExtraError) as raised:
        create_tracker(settings, "lamp")
    assert str(raised.value) == (
        f'{track} is not installed. Install it with: pip install "patchline[track]"'
    )


@pytest.mark.parametrize("track", ["wandb", "tensorboard"])
def test_a_folder_that_cannot_be_written_is_refused(
    track: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "runs").write_text("a file", encoding="utf-8")
    settings = TrackSettings.model_validate({"track": track, "folder": tmp_path / "runs"})
    with pytest.raises(WriteError, match="cannot write to"):
        create_tracker(settings, "lamp")


def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        create_tracker(TrackSettings(track="wandb", folder=tmp_path / "runs"), "lamp")
    assert "WANDB_API_KEY" in str(raised.value)
    assert "WANDB_MODE=offline" in str(raised.value)
    assert not (tmp_path / "runs").exists()
