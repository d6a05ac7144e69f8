"""Options of ``export-model`` that are of a conversion: refused where they would do nothing.

A settings file may hold settings for several exports, so that only what was given on the command
line is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchline.runtime.errors import ConfigurationError


def int8_options(precision: object, *, is_forced: bool, **options: Any) -> tuple[str, ...]:
    """Words of the INT8 options that were given, such as ``--calibration-images``.

    Args:
        precision: of the export; what is no precision at all is refused with the settings.
        is_forced: whether ``--force`` was given.
        options: values by the option's name; ``None`` where it was not given.

    Raises:
        ConfigurationError: one was given that this precision has no use for; all are named.
    """
    given = tuple(
        f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None
    )
    if given and precision in ("fp32", "fp16"):
        raise ConfigurationError(
            f"{_listed(given)} {'is' if len(given) == 1 else 'are'} of INT8, and this export is "
            f"{str(precision).upper()}: add --precision int8, or leave {_them(given)} out"
        )
    if is_forced and precision == "fp32":
        raise ConfigurationError(
            "--force writes a converted model that the gate refuses, and this export is FP32, "
            "which is not converted: add --precision fp16 or int8, or leave it out"
        )
    return given


def ignored_options(graph: Path, options: Sequence[str]) -> str:
    """A sentence that refuses INT8 options for a graph that is there already."""
    return (
        f"{graph} is there already and stays as it is for the classes that use it, so that "
        f"{_listed(options)} would do nothing: give another --out, for a graph of its own, or "
        f"leave {_them(options)} out"
    )


def _listed(options: Sequence[str]) -> str:
    *first, last = options
    return f"{', '.join(first)} and {last}" if first else last


def _them(options: Sequence[str]) -> str:
    return "it" if len(options) == 1 else "them"
