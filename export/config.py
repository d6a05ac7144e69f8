"""Settings of a fit: from the command line, from a TOML file, checked together."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from patchline.export.config_problems import field_problems, misplaced_fields
from patchline.export.config_train import DISTILLATION, TrainSettings
from patchline.export.overrides import merged
from patchline.export.presets import read_config
from patchline.export.scores import DEFAULT_SCORE, SCORES
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError

METHOD_SCORES = {
    "patchcore-noising": DEFAULT_SCORE,
    "patchcore": "patchcore",
    DISTILLATION: "cosine",
}
"""The methods of this version, with the score each uses unless told otherwise.

That of ``reverse-distillation`` cannot be chosen, and no memory bank has it.
"""

DISTILLATION_SPLIT = 0.2
"""Share of the pictures that a training never sees and the threshold comes from, by default."""

_GIB = 1 << 30


class FitSettings(BaseModel):
    """What a fit needs to know besides the pictures. All sizes are (height, width)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    method: Literal["patchcore-noising", "patchcore", "reverse-distillation"] = "patchcore-noising"
    score: str | None = None
    backbone: str = "wide_resnet50_2"
    weights: str | None = None
    image_size: tuple[
        Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]
    ] = (256, 256)
    coreset_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    coreset: Literal["exact", "sharded"] = "exact"
    coreset_delta: Annotated[float, Field(gt=0, le=1)] = 1.0
    coreset_shards: Annotated[int, Field(ge=1, le=10_000)] | None = None
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
    train: TrainSettings = TrainSettings()

    @property
    def score_name(self) -> str:
        """The score in use: the one asked for, or the method's own."""
        return self.score or METHOD_SCORES[self.method]

    @property
    def held_out_share(self) -> float | None:
        """Share of the pictures kept for the threshold alone; ``None``: five folds instead."""
        if self.calibration_split is None and self.method == DISTILLATION:
            return DISTILLATION_SPLIT
        return self.calibration_split

    @property
    def model_size(self) -> ModelSize:
        """Height and width of the model's frames."""
        return ModelSize(height=self.image_size[0], width=self.image_size[1])


def load_settings(config: Path | None, given: dict[str, Any]) -> FitSettings:
    """Settings of a TOML file or a preset, overridden by what was given on the command line.

    Raises:
        ConfigurationError: as for :func:`read_fields` and :func:`make_settings`.
    """
    return make_settings(read_fields(config, given), config)


def read_fields(config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a TOML file, overridden by what was given on the command line; not checked yet.

    Args:
        config: a TOML file with fields of :class:`FitSettings`, or the name of a preset.
        given: fields by name, a dictionary for a table; ``None`` values do not count as given.

    Raises:
        ConfigurationError: no such file nor preset, or no TOML.
    """
    fields = read_config(config) if config is not None else {}
    return merged(fields, {name: value for name, value in given.items() if value is not None})


def make_settings(fields: dict[str, Any], config: Path | None = None) -> FitSettings:
    """Settings from fields by name; ``config`` is the file to name in messages.

    Raises:
        ConfigurationError: unknown or ill-typed fields, fields that another method has, or values
            that contradict each other (all of them are named).
    """
    misplaced = misplaced_fields(fields)
    try:
        settings = FitSettings(**fields)
    except ValidationError as error:
        problems = [*field_problems(error, FitSettings), *misplaced]
        origin = f"{config}: " if config is not None else ""
        raise ConfigurationError(origin + "; ".join(problems)) from error
    problems = [*misplaced, *_contradictions(settings)]
    if problems:
        raise ConfigurationError(". ".join(problems))
    return settings


def _contradictions(settings: FitSettings) -> Iterator[str]:
    if settings.method == DISTILLATION:
        yield from settings.train.contradictions()
        return
    yield from _unused(settings)
    if settings.score_name not in SCORES:
        yield f"score is {settings.score_name!r}, expected one of: {', '.join(SCORES)}"
    if settings.search == "pruned" and settings.bank == "external":
        yield (
            "search is 'pruned', which needs the bank in the graph, and bank is 'external'. Leave "
            "one of them out"
        )
    elif settings.search == "pruned" and settings.precision == "fp16":
        yield (
            "search is 'pruned', which needs a bank in float32, and precision is 'fp16'. Leave one "
            "of them out"
        )


def _unused(settings: FitSettings) -> Iterator[str]:
    of_shards = ("coreset_delta", "coreset_shards")
    given = [name for name in of_shards if name in settings.model_fields_set]
    if given and settings.coreset == "exact":
        yield (
            f"{' and '.join(given)} would do nothing, since coreset is 'exact': add --coreset "
            "sharded, or leave that out"
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
