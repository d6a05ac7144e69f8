"""What may be wrong in the settings of a line, as sentences that show no credentials."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from patchline.runtime.camera.address import Kind, parse_address
from patchline.runtime.camera.options import (
    LARGEST_FPS,
    LARGEST_LATENCY_MS,
    LARGEST_PX,
    Codec,
    Flip,
)
from patchline.runtime.camera.redact import redact
from patchline.runtime.decisions.drift import LARGEST_WINDOW, LEAST_WINDOW
from patchline.runtime.decisions.trigger import LARGEST_WINDOW as LARGEST_TRIGGER
from patchline.runtime.errors import ConfigurationError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a camera may be called."""

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


def take_out_wrong(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
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


def label_of(name: object, number: int) -> str:
    """What a camera is called in messages: its name, or its number where that is none."""
    is_name = isinstance(name, str) and NAME.fullmatch(name) is not None
    return str(name) if is_name else str(number)


def complete(camera: dict[str, Any], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
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


def half_a_size(camera: Mapping[str, Any]) -> Iterator[str]:
    """A width without a height, or the other way round, as a sentence."""
    given = [name for name in ("width", "height") if name in camera]
    if len(given) == 1:
        yield f"{given[0]} is given alone, expected width and height together"


def _is_path(source: str) -> bool:
    # In front of an address whose scheme was forgotten, a folder would hide that it is one, and
    # its credentials would be shown as part of a path.
    return _ADDRESS.match(source) is None and redact(source) == source


def shared_names(cameras: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that two cameras have, as a sentence."""
    # Names become file names, and not every file system tells small letters from large ones.
    names = [camera["name"] for camera in cameras if isinstance(camera["name"], str)]
    count = Counter(name.lower() for name in names)
    shared = dict.fromkeys(name for name in names if count[name.lower()] > 1)
    if not shared:
        return []
    return [f"two cameras are called {' and '.join(map(repr, shared))}, expected unique names"]


def shared_devices(cameras: Sequence[Mapping[str, Any]]) -> list[str]:
    """Devices that two cameras would open, as a sentence: only one of them could, by chance."""
    names: dict[tuple[Kind, str], list[str]] = {}
    for camera in cameras:
        try:
            address = parse_address(camera.get("source", ""))
        except (ConfigurationError, TypeError, AttributeError):
            continue  # said elsewhere
        if address.kind in (Kind.USB, Kind.CSI):
            device = re.sub(r"/dev/video(\d+)", r"\1", address.value)
            names.setdefault((address.kind, device), []).append(str(camera["name"]))
    return [
        f"the cameras {' and '.join(map(repr, found))} have the same device, which only one of "
        "them can open: expected a device each"
        for found in names.values()
        if len(found) > 1
    ]
