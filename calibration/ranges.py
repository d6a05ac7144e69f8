"""INT8 ranges of a network's activations: what they are, and a cache keyed by all they rest on."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchline.calibration.activations import AbsoluteHistogram, RangeMethod, limit_of
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ConfigurationError, DataError, WriteError
from patchline.runtime.files import write_atomically
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.progress import Advance

logger = logging.getLogger(__name__)

IMAGES = 100
"""Good pictures that the ranges are found on, where no other number is asked for."""

LEAST_IMAGES = 8

Observe = Callable[[Frame], Mapping[str, npt.NDArray[np.float32]]]
"""Frames uint8 ``[1, H, W, 3]`` -> every activation by name."""


class Ranges(BaseModel):
    """The largest absolute value of every activation that INT8 is to represent.

    Attributes:
        method: ``minmax``, ``entropy`` or ``percentile``.
        percentile: share of values not clipped, in %, where the method is ``percentile``.
        images: good pictures that were looked at.
        sha256: over their contents, in the order they were looked at.
        limits: by name of the tensor in the graph; 0 where it never differed from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    method: RangeMethod
    percentile: float | None
    images: Annotated[int, Field(ge=1)]
    sha256: str
    limits: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


def spread(pictures: Sequence[Path], images: int) -> tuple[Path, ...]:
    """``images`` of the pictures, evenly spread over them in their order; all where fewer.

    Raises:
        ConfigurationError: less than eight are asked for or there.
    """
    if images < LEAST_IMAGES:
        raise ConfigurationError(
            f"{images} calibration images were asked for, and at least {LEAST_IMAGES} are needed: "
            f"raise --calibration-images ({IMAGES} by default)"
        )
    if len(pictures) < LEAST_IMAGES:
        raise ConfigurationError(
            f"{len(pictures)} good pictures are there for the INT8 calibration, and at least "
            f"{LEAST_IMAGES} are needed: add pictures, or export with --precision fp16"
        )
    count = min(images, len(pictures))
    return tuple(pictures[i * (len(pictures) - 1) // (count - 1)] for i in range(count))


def measure(
    observe: Observe,
    pictures: Sequence[Path],
    sha256: str,
    size: ModelSize,
    method: RangeMethod,
    percentile: float,
    advance: Advance,
) -> Ranges:
    """Look at every activation on every picture, one picture at a time.

    Args:
        observe: runs the network.
        pictures: good pictures; all of them are looked at.
        sha256: over their contents.
        size: height and width of the network's input in pixels.
        method: as for :func:`patchline.calibration.activations.limit_of`.
        percentile: likewise.
        advance: told how many pictures are done.

    Raises:
        ImageReadError: a picture cannot be read.
        DataError: an activation is NaN or infinite; it and the picture are named.
    """
    histograms: dict[str, AbsoluteHistogram] = {}
    for done, path in enumerate(pictures, start=1):
        found = observe(preprocess(read_image(path), size)[None])
        broken = [name for name, values in found.items() if not np.isfinite(values).all()]
        if broken:
            raise DataError(
                f"{broken[0]} is NaN or infinite for {path}. The backbone's weights are damaged, "
                "or do not fit it: give others with --weights"
            )
        for name, values in found.items():
            histograms.setdefault(name, AbsoluteHistogram()).add(values)
        advance(done)
    return Ranges(
        method=method,
        percentile=percentile if method == "percentile" else None,
        images=len(pictures),
        sha256=sha256,
        limits={name: limit_of(item, method, percentile) for name, item in histograms.items()},
    )


def cache_folder() -> Path:
    """Where ranges are kept for the next export (``XDG_CACHE_HOME``, ``~/.cache``)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "patchline" / "ranges"


def cache_file(
    folder: Path, graph: bytes, pictures: str, size: ModelSize, method: RangeMethod, p: float
) -> Path:
    """The file for ranges of one graph (serialised), on these pictures (digest), by one method."""
    key = {
        "graph": hashlib.sha256(graph).hexdigest(),
        "pictures": pictures,
        "size": [size.height, size.width],
        "method": method,
        "percentile": p if method == "percentile" else None,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:32]}.json"


def read_cache(file: Path, tensors: Sequence[str]) -> Ranges | None:
    """What was kept; ``None`` where there is nothing, or (said in the log) nothing to be used."""
    try:
        ranges = Ranges.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = f"{len(error.errors())} faults" if isinstance(error, ValidationError) else error
        logger.warning("the kept ranges %s are damaged (%s) and are found anew", file, reason)
        return None
    if set(ranges.limits) != set(tensors) or not all(map(math.isfinite, ranges.limits.values())):
        logger.warning("the kept ranges %s are of other tensors and are found anew", file)
        return None
    return ranges


def write_cache(file: Path, ranges: Ranges) -> None:
    """Keep ranges; that they cannot be kept is said in the log and costs time alone."""
    try:
        write_atomically(file, ranges.model_dump_json(indent=1).encode())
    except WriteError as error:
        logger.warning("the ranges are not kept: %s", error)
