"""Where a key for Weights & Biases is looked for, and which mode is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchline.export.tracking.wandb_access import wandb_mode
from patchline.runtime.errors import ConfigurationError

KEY = "0" * 40


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_settings(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "settings").write_text(f"[default]\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")],
)
def test_without_a_server_no_key_is_needed(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", name)
    assert wandb_mode() == mode


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_the_environment_holds_a_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "run")
    assert wandb_mode() == "online"


@pytest.mark.parametrize("file", [".netrc", "_netrc", "elsewhere"])
def test_a_login_holds_a_key(file: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / file).write_text(f"machine api.wandb.ai login user password {KEY}\n")
    if file == "elsewhere":
        monkeypatch.setenv("NETRC", str(home / file))
    assert wandb_mode() == "online"


def test_a_login_for_another_server_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text(f"machine wandb.plant.example login user password {KEY}\n")
    with pytest.raises(ConfigurationError, match="no API key"):
        wandb_mode()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.plant.example")
    assert wandb_mode() == "online"


@pytest.mark.parametrize("text", ["machine api.wandb.ai login user\n", "machine machine", "\0\xff"])
def test_a_login_file_without_a_key_is_none(text: str, home: Path) -> None:
    (home / ".netrc").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match="no API key"):
        wandb_mode()


def test_settings_files_are_read_those_of_the_folder_first(home: Path) -> None:
    write_settings(home / ".config" / "wandb", f"api_key = {KEY}\nmode = online")
    assert wandb_mode() == "online"
    write_settings(home / "wandb", "mode = offline")
    assert wandb_mode() == "offline"


def test_a_damaged_settings_file_counts_for_nothing(home: Path) -> None:
    (home / "wandb").mkdir()
    (home / "wandb" / "settings").write_text("mode offline", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no API key"):
        wandb_mode()


def test_an_unknown_mode_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigurationError, match="'sometimes', expected one of: online, run, off"):
        wandb_mode()
