"""What a line is to look at and by which rules, from a TOML file; checked as a whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from patchline.runtime.camera.options import (
    LARGEST_FPS,
    LARGEST_LATENCY_MS,
    LARGEST_PX,
    Codec,
    Flip,
)
from patchline.runtime.camera.redact import redact
from patchline.runtime.decisions.drift import DEFAULT_WINDOW, LARGEST_WINDOW, LEAST_WINDOW
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.settings_problems import (
    NAME,
    complete,
    half_a_size,
    label_of,
    shared_devices,
    shared_names,
    take_out_wrong,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
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
    problems += take_out_wrong(_TopLevel, top)
    shared = {name: value for name, value in top.items() if name in CameraRules.model_fields}
    cameras = [
        {"name": f"camera{number}"} | shared | table for number, table in enumerate(tables, 1)
    ]
    problems += shared_names(cameras)
    for number, camera in enumerate(cameras, 1):
        label = label_of(camera["name"], number)
        found = [*half_a_size(camera), *complete(camera, folder, environment)]
        found += take_out_wrong(CameraSettings, camera)
        problems += [f"camera {label}: {problem}" for problem in found]
    problems = problems or shared_devices(cameras)
    if problems:
        raise ConfigurationError(f"{origin}: {'; '.join(problems)}")
    own = {name: value for name, value in top.items() if name in LineRules.model_fields}
    return LineSettings(cameras=tuple(CameraSettings(**camera) for camera in cameras), **own)
