"""Settings files by name: a TOML file of the user's, or one of ``patchline.export.configs``."""

from __future__ import annotations

import difflib
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from patchline.runtime.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = "patchline.export.configs"
_SUFFIX = ".toml"


def preset_names() -> tuple[str, ...]:
    """Names of all presets, sorted."""
    files = (Path(item.name) for item in resources.files(_PACKAGE).iterdir())
    return tuple(sorted(file.stem for file in files if file.suffix == _SUFFIX))


def read_config(config: Path) -> dict[str, Any]:
    """Fields of a settings file; not checked yet.

    Args:
        config: a file, or else the name of a preset.

    Raises:
        ConfigurationError: neither (the presets are listed), it cannot be read, or is no TOML.
    """
    names = preset_names()
    if not config.is_file() and str(config) in names:
        text = (resources.files(_PACKAGE) / f"{config}{_SUFFIX}").read_text(encoding="utf-8")
        return dict(tomllib.loads(text))
    try:
        return dict(tomllib.loads(config.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"cannot read {config}: {error.strerror}, and no preset has that name. "
            f"{_suggestion(config, names)}Presets: {', '.join(names)}"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{config} is no valid TOML: {error}") from error


def _suggestion(config: Path, names: tuple[str, ...]) -> str:
    stem = config.stem if config.suffix == _SUFFIX else config.name
    close = difflib.get_close_matches(stem, names, 1)
    return f"Did you mean {close[0]}? " if close else ""
