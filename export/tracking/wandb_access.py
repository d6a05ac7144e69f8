"""Whether Weights & Biases can be used without asking: its mode, and whether there is a key.

W&B itself asks for a key on the terminal where it finds none, which would stop a training before it
began. So its own places are looked through first: https://docs.wandb.ai/guides/track/environment-variables
"""

from __future__ import annotations

import configparser
import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from patchline.runtime.errors import ConfigurationError

Mode = Literal["online", "offline", "disabled"]

_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_SERVER = "https://api.wandb.ai"


def wandb_mode() -> Mode:
    """The mode that the environment or ``wandb offline`` asks for; online needs a key.

    Raises:
        ConfigurationError: online without an API key, or a mode that is unknown.
    """
    name = _asked("mode") or "online"
    if name not in _MODES:
        raise ConfigurationError(f"WANDB_MODE is {name!r}, expected one of: {', '.join(_MODES)}")
    mode = _MODES[name]
    if mode == "online" and not _has_key():
        raise ConfigurationError(
            "there is no API key for Weights & Biases. Set WANDB_API_KEY, or log in once with: "
            "wandb login; or keep the run on this machine with WANDB_MODE=offline"
        )
    return mode


def _asked(name: str) -> str | None:
    return os.environ.get(f"WANDB_{name.upper()}") or _stored(name)


def _stored(name: str) -> str | None:
    """A value of W&B's settings files: those of this folder before those of the user."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    here = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user / "settings", here / "settings"], encoding="utf-8")
        return parser.get("default", name, fallback=None)
    except (configparser.Error, UnicodeDecodeError):
        return None


def _has_key() -> bool:
    if _asked("api_key") or _asked("identity_token_file"):
        return True
    host = urlsplit(_asked("base_url") or _SERVER).netloc
    try:
        entry = netrc.netrc(_netrc_path()).authenticators(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return entry is not None and bool(entry[2])


def _netrc_path() -> Path:
    if given := os.environ.get("NETRC"):
        return Path(given).expanduser()
    usual = Path("~/.netrc").expanduser()
    return usual if usual.exists() else Path("~/_netrc").expanduser()
