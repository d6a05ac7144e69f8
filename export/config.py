"""Settings of a fit: from the command line, from a TOML file, checked together."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchline.calibration.ranges import IMAGES as CALIBRATION_IMAGES
from patchline.calibration.ranges import LEAST_IMAGES
from patchline.calibration.threshold import (
    DEFAULT_FALSE_ALARM_RATE,
    LARGEST_RATE,
    SMALLEST_RATE,
)
from patchline.export.scores import DEFAULT_SCORE, SCORES
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

METHOD_SCORES = {"patchcore-noising": DEFAULT_SCORE, "patchcore": "patchcore"}
"""The methods of this version, with the score each uses unless told otherwise."""

_GIB = 1 << 30


class FitSettings(BaseModel):
    """What a fit needs to know besides the pictures. All sizes are (height, width)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    method: Literal["patchcore-noising", "patchcore"] = "patchcore-noising"
    score: str | None = None
    backbone: str = "wide_resnet50_2"
    weights: str | None = None
    image_size: tuple[
        Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]
    ] = (256, 256)
    coreset_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbors: Annotated[int, Field(ge=1, le=100)] = 9
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    false_alarm_rate: Annotated[float, Field(ge=SMALLEST_RATE, le=LARGEST_RATE)] = (
        DEFAULT_FALSE_ALARM_RATE
    )
    calibration_split: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    memory_budget_bytes: Annotated[int, Field(ge=1 << 20)] = 4 * _GIB
    skip_unreadable: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bank: Literal["embedded", "external"] = "embedded"
    search: Literal["auto", "exact", "pruned"] = "auto"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    calibration_images: Annotated[int, Field(ge=LEAST_IMAGES)] = CALIBRATION_IMAGES
    calibration_method: Literal["minmax", "entropy", "percentile"] = "percentile"
    float_layers: tuple[str, ...] = ()

    @property
    def score_name(self) -> str:
        """The score in use: the one asked for, or the method's own."""
        return self.score or METHOD_SCORES[self.method]

    @property
    def model_size(self) -> ModelSize:
        """Height and width of the model's frames."""
        return ModelSize(height=self.image_size[0], width=self.image_size[1])


def load_settings(config: Path | None, given: dict[str, Any]) -> FitSettings:
    """Settings of a TOML file, overridden by what was given on the command line.

    Raises:
        ConfigurationError: as for :func:`read_fields` and :func:`make_settings`.
    """
    return make_settings(read_fields(config, given), config)


def read_fields(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a TOML file, overridden by what was given on the command line; not checked yet.

    Args:
        config: a TOML file with fields of :class:`FitSettings`.
        given: fields by name; ``None`` values do not count as given.

    Raises:
        ConfigurationError: no such file, or no TOML.
    """
    fields = _read(config) if config is not None else {}
    return fields | {name: value for name, value in given.items() if value is not None}


def make_settings(fields: dict[str, Any], config: Path | None = None) -> FitSettings:
    """Settings from fields by name; ``config`` is the file to name in messages.

    Raises:
        ConfigurationError: unknown or ill-typed fields (all of them are named).
    """
    try:
        settings = FitSettings(**fields)
    except ValidationError as error:
        raise ConfigurationError(_problems(error, config)) from error
    if settings.score_name not in SCORES:
        raise ConfigurationError(
            f"score is {settings.score_name!r}, expected one of: {', '.join(SCORES)}"
        )
    _check_search(settings)
    return settings


def _check_search(settings: FitSettings) -> None:
    if settings.search != "pruned":
        return
    if settings.bank == "external":
        raise ConfigurationError(
            "search is 'pruned', which needs the bank in the graph, and bank is 'external'. Leave "
            "one of them out"
        )
    if settings.precision == "fp16":
        raise ConfigurationError(
            "search is 'pruned', which needs a bank in float32, and precision is 'fp16'. Leave one "
            "of them out"
        )


def parse_size(text: str) -> tuple[int, int]:
    """``256`` or ``256x320`` (height x width) in pixels.

    Raises:
        ConfigurationError: another form.
    """
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip().lower())
    if match is None:
        raise ConfigurationError(
            f"image size is {text!r}, expected 256 or 256x320 (height x width)"
        )
    return int(match[1]), int(match[2] or match[1])


def parse_names(text: str) -> tuple[str, ...]:
    """``first,last`` -> names; spaces and empty ones do not count."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _read(config: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{config} is no valid TOML: {error}") from error
    return fields


def _problems(error: ValidationError, config: Path | None) -> str:
    listed = "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].lower()}, "
        f"got {item['input']!r}"
        for item in error.errors()
    )
    return f"{config}: {listed}" if config is not None else listed
