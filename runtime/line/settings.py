"""What a line is to look at and by which rules, from a TOML file; checked as a whole."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from patchline.runtime.camera.address import parse_address
from patchline.runtime.camera.adjust import Flip
from patchline.runtime.camera.options import (
    LARGEST_FPS,
    LARGEST_LATENCY_MS,
    LARGEST_PX,
    Codec,
)
from patchline.runtime.camera.redact import redact
from patchline.runtime.decisions.drift import DEFAULT_WINDOW, LARGEST_WINDOW, LEAST_WINDOW
from patchline.runtime.decisions.trigger import LARGEST_WINDOW as LARGEST_TRIGGER
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[0-9]+\Z")  # C:/ is a path, 0 a camera


_SIDE = f"whole pixels, 1 to {LARGEST_PX}"
_EXPECTED = {
    "name": "1 to 64 letters, digits, - and _",
    "source": "an address or a path, as --source takes it",
    "width": _SIDE,
    "height": _SIDE,
    "fps": f"a number above 0, up to {LARGEST_FPS:g}",
    "codec": f"one of {', '.join(codec.value for codec in Codec)}",
    "latency_ms": f"whole milliseconds, 0 to {LARGEST_LATENCY_MS}",
    "flip": f"one of {', '.join(flip.value for flip in Flip)}",
    "crop": "x, y, width and height in whole pixels, such as [100, 50, 800, 600]",
    "mask": "the path of a picture",
    "threshold": "a finite number",
    "trigger": f"N/M with N from 1 to M, and M up to {LARGEST_TRIGGER}, such as '3/5'",
    "drift": "auto or off",
    "drift_window": f"whole frames, {LEAST_WINDOW} to {LARGEST_WINDOW}",
}
_SHOWN_TEXTS = frozenset({"name", "codec", "flip", "trigger", "drift"})


def _trigger(value: object) -> object:
    return Trigger.parse(value) if isinstance(value, str) else value


_Side = Annotated[int, Field(strict=True, ge=1, le=LARGEST_PX)]
_Offset = Annotated[int, Field(strict=True, ge=0, le=LARGEST_PX)]


class CameraRules(BaseModel):
    """What may also be set for all cameras at once.

    Attributes:
        width: asked of the camera in pixels; ``None`` is what it gives by itself, as below.
        height: likewise.
        fps: frames per second asked of it.
        codec: of a stream or a USB camera.
        latency_ms: how much of a network stream is held back against jitter.
        flip: how frames are mirrored.
        crop: x, y, width and height in pixels of the flipped frame; everything if ``None``.
        mask: a picture that is white where the part is inspected.
        threshold: instead of the model's.
        trigger: how many of the latest frames must be anomalous before it is an event.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True
    )

    width: _Side | None = None
    height: _Side | None = None
    fps: Annotated[float, Field(gt=0, le=LARGEST_FPS, allow_inf_nan=False)] | None = None
    codec: Annotated[Codec, Field(strict=False)] = Codec.AUTO
    latency_ms: Annotated[int, Field(ge=0, le=LARGEST_LATENCY_MS)] | None = None
    flip: Annotated[Flip, Field(strict=False)] = Flip.NONE
    crop: Annotated[tuple[_Offset, _Offset, _Side, _Side], Field(strict=False)] | None = None
    mask: Annotated[Path, Field(strict=False)] | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    trigger: Annotated[Trigger, BeforeValidator(_trigger)] = Trigger()


class CameraSettings(CameraRules):
    """One camera of a line.

    Attributes:
        name: unique in the line; letters, digits, ``-`` and ``_``, up to 64.
        source: its address, which may hold credentials: what may be shown is ``shown_source``.
    """

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    source: Annotated[str, Field(pattern=r"\S", repr=False)]

    @property
    def shown_source(self) -> str:
        """The address without credentials."""
        return redact(self.source)


class LineRules(BaseModel):
    """What is set once for a line.

    Attributes:
        drift: whether scores are compared with the model's normal scores.
        drift_window: how many of the latest frames are compared.
    """

    model_config: ClassVar[ConfigDict] = CameraRules.model_config

    drift: Literal["auto", "off"] = "auto"
    drift_window: Annotated[int, Field(ge=LEAST_WINDOW, le=LARGEST_WINDOW)] = DEFAULT_WINDOW


class LineSettings(LineRules):
    """A line: ``cameras`` holds at least one, their names unique."""

    cameras: Annotated[tuple[CameraSettings, ...], Field(min_length=1)]


class _TopLevel(LineRules, CameraRules):
    """All of a file but its cameras."""


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> LineSettings:
    """Read the TOML file of a line; see docs/decisions.md.

    Values at the top level hold for every camera that does not set them itself. Relative paths
    are relative to the file. ``${NAME}`` in a ``source`` is replaced from the environment.

    Raises:
        ConfigurationError: it cannot be read, or as for :func:`make_settings`.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error.reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    return make_settings(document, path.parent, str(path), environment)


def make_settings(
    document: Mapping[str, Any],
    folder: Path,
    origin: str,
    environment: Mapping[str, str] = os.environ,
) -> LineSettings:
    """Check the settings of a line.

    Args:
        document: as the TOML file has it; ``camera`` is a list of tables.
        folder: what relative paths are relative to.
        origin: where it comes from, for messages.
        environment: what ``${NAME}`` is replaced from.

    Raises:
        ConfigurationError: values are missing, unknown or out of range, names are not unique, or
            an environment variable is not set. All that is wrong is said, and no credentials.
    """
    top = {name: value for name, value in document.items() if name != "camera"}
    tables = document.get("camera", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{origin}: each camera is a table that begins with [[camera]]")
    problems = [] if tables else ["there is no camera, expected a table [[camera]] for each"]
    problems += _take_out_wrong(_TopLevel, top)
    shared = {name: value for name, value in top.items() if name in CameraRules.model_fields}
    cameras = [
        {"name": f"camera{number}"} | shared | table for number, table in enumerate(tables, 1)
    ]
    problems += _shared_names(cameras)
    for number, camera in enumerate(cameras, 1):
        label = _label(camera["name"], number)
        found = [*_half_a_size(camera), *_complete(camera, folder, environment)]
        found += _take_out_wrong(CameraSettings, camera)
        problems += [f"camera {label}: {problem}" for problem in found]
    if problems:
        raise ConfigurationError(f"{origin}: {'; '.join(problems)}")
    own = {name: value for name, value in top.items() if name in LineRules.model_fields}
    return LineSettings(cameras=tuple(CameraSettings(**camera) for camera in cameras), **own)


def _take_out_wrong(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    """Take what the model refuses out of ``values``; gives it as sentences."""
    try:
        model(**values)
    except ValidationError as error:
        # A crop of four wrong numbers is one mistake.
        wrong = dict.fromkeys(str(item["loc"][0]) for item in error.errors(include_input=False))
        problems = [_problem(name, model, values) for name in wrong]
        for name in wrong:
            values.pop(name, None)
        return problems
    return []


def _problem(name: str, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    if name not in model.model_fields:
        known = ", ".join(model.model_fields)
        return f"{redact(name)} is unknown here, expected one of {known}"
    if name not in values:
        return f"{name} is missing, expected {_EXPECTED[name]}"
    return f"{name} is {_shown(name, values[name])}, expected {_EXPECTED[name]}"


def _shown(name: str, value: object) -> str:
    """A value for a message: texts only where nobody would write a password."""
    if isinstance(value, str):
        return repr(value) if name in _SHOWN_TEXTS else "this text"
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return str(value)
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def _label(name: object, number: int) -> str:
    """What a camera is called in messages: its name, or its number where that is none."""
    is_name = isinstance(name, str) and _NAME.fullmatch(name) is not None
    return str(name) if is_name else str(number)


def _complete(
    camera: dict[str, Any], folder: Path, environment: Mapping[str, str]
) -> Iterator[str]:
    """Put in what ``mask`` and ``source`` leave open; gives what is missing, as sentences."""
    if isinstance(camera.get("mask"), str):
        camera["mask"] = str(folder / camera["mask"])
    source = camera.get("source")
    if not isinstance(source, str) or not source.strip():
        return
    missing = [name for name in _VARIABLE.findall(source) if name not in environment]
    for name in dict.fromkeys(missing):
        yield f"source needs the environment variable {name}, which is not set"
    if missing:
        return
    source = _VARIABLE.sub(lambda found: environment[found[1]], source)
    camera["source"] = str(folder / source) if _is_path(source) else source
    try:
        parse_address(source)
    except ConfigurationError as error:
        yield f"source: {error}"


def _half_a_size(camera: Mapping[str, Any]) -> Iterator[str]:
    given = [name for name in ("width", "height") if name in camera]
    if len(given) == 1:
        yield f"{given[0]} is given alone, expected width and height together"


def _is_path(source: str) -> bool:
    # In front of an address whose scheme was forgotten, a folder would hide that it is one, and
    # its credentials would be shown as part of a path.
    return _ADDRESS.match(source) is None and redact(source) == source


def _shared_names(cameras: Sequence[Mapping[str, Any]]) -> list[str]:
    # Names become file names, and not every file system tells small letters from large ones.
    names = [camera["name"] for camera in cameras if isinstance(camera["name"], str)]
    count = Counter(name.lower() for name in names)
    shared = dict.fromkeys(name for name in names if count[name.lower()] > 1)
    if not shared:
        return []
    return [f"two cameras are called {' and '.join(map(repr, shared))}, expected unique names"]
