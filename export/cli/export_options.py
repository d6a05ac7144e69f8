"""Options of ``export-model``: their choices, where results go, and fields of the settings."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Method(str, enum.Enum):
    """What is fitted."""

    PATCHCORE_NOISING = "patchcore-noising"
    PATCHCORE = "patchcore"


class Place(str, enum.Enum):
    """Where the memory bank is."""

    EMBEDDED = "embedded"
    EXTERNAL = "external"


class SearchName(str, enum.Enum):
    """How the memory bank is searched."""

    AUTO = "auto"
    EXACT = "exact"
    PRUNED = "pruned"


class PrecisionName(str, enum.Enum):
    """Of the backbone; the bank follows where the gate allows it."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class CalibrationMethod(str, enum.Enum):
    """How INT8 ranges are found."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Device(str, enum.Enum):
    """Where PyTorch computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Output:
    """Where results go, and whether what the gate refuses goes there too.

    Attributes:
        folder: of the models.
        as_json: whether stdout gets JSON instead of a table.
        is_forced: whether a converted model is written in spite of the gate.
        sensitivity: chart of what INT8 costs in each layer, where one was asked for.
        int8_options: words of the INT8 options that were given on the command line.
    """

    folder: Path
    as_json: bool
    is_forced: bool
    sensitivity: Path | None
    int8_options: tuple[str, ...] = ()


def fields_of(config: Path | None, **options: Any) -> dict[str, Any]:
    """Fields of :class:`patchline.export.config.FitSettings` that were given; not checked yet.

    Args:
        config: a TOML file of fields, which options override.
        options: values by the option's name; ``None`` where it was not given.

    Raises:
        ConfigurationError: no such file, no TOML, or a text that is no size, names or bytes.
    """
    from patchline.export.config import parse_names, parse_size, read_fields
    from patchline.runtime.byte_size import parse_bytes

    parsed: dict[str, tuple[str, Callable[[str], Any]]] = {
        "image_size": ("image_size", parse_size),
        "memory_budget": ("memory_budget_bytes", parse_bytes),
        "float_layers": ("float_layers", parse_names),
    }
    given = {}
    for option, value in options.items():
        name, convert = parsed.get(option, (option, _plain))
        given[name] = None if value is None else convert(value)
    return read_fields(config, given)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
