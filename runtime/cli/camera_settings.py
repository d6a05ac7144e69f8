"""The settings of a line: from ``--config``, or from ``--source`` and the options beside it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from patchline.runtime.line.settings import LineSettings


def line_settings(
    config: Path | None, sources: list[str], given: Mapping[str, Any]
) -> LineSettings:
    """What the line looks at, and by which rules.

    Args:
        config: the TOML file, which then says it all.
        sources: an address for each camera.
        given: further options by their names in that file; ``None`` where one was not given.

    Raises:
        BadParameter: neither of the two.
        ConfigurationError: both, or values that cannot be.
    """
    from patchline.runtime.errors import ConfigurationError
    from patchline.runtime.line.settings import load_settings, make_settings

    values = {name: _plain(name, value) for name, value in given.items() if value is not None}
    if config is None and not sources:
        raise typer.BadParameter("give --source once for each camera, or --config with a TOML file")
    if config is None:
        cameras = [{"source": source} for source in sources]
        return make_settings({**values, "camera": cameras}, Path(), "the options")
    if sources or values:
        names = ", ".join([*(["--source"] if sources else []), *map(_option, values)])
        raise ConfigurationError(
            f"{names} beside --config: the cameras and their rules are those of {config}. Write "
            "it there"
        )
    return load_settings(config)


def _plain(name: str, value: Any) -> Any:
    if name == "crop":
        from patchline.runtime.camera.adjust import Box

        box = Box.parse(value)
        return [box.x, box.y, box.width, box.height]
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _option(name: str) -> str:
    return f"--{'latency' if name == 'latency_ms' else name}"
