"""TensorRT's timing cache on disk: a second class on the same backbone builds in a fraction.

One file per TensorRT version, GPU model and compute capability, in the user's cache folder; a cache
of another machine is never offered. Losing it costs time and nothing else, so a cache that cannot
be read or written is said in the log and passed over.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.plans.record import Device
from patchline.runtime.errors import WriteError
from patchline.runtime.files import write_atomically

logger = logging.getLogger(__name__)


def timing_cache_path(flavour: Flavour, device: Device | None) -> Path:
    """Where the cache for this TensorRT and GPU lies (``XDG_CACHE_HOME``, ``~/.cache``)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    gpu = f"{device.gpu}-{device.compute_capability}" if device else "no-gpu"
    name = re.sub(r"[^a-z0-9.]+", "-", f"{flavour.name}-{flavour.version}-{gpu}".lower())
    return root / "patchline" / f"{name}.timing"


def attach(config: Any, path: Path) -> None:
    """Give a builder configuration the cache at ``path``, or an empty one."""
    content = b""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("the timing cache %s cannot be read: %s", path, error)
    cache = config.create_timing_cache(content)
    # False: TensorRT checks that the cache is of this machine and refuses it otherwise.
    if cache is None or not config.set_timing_cache(cache, False):
        logger.warning("the timing cache %s is not of this machine; starting a new one", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep(config: Any, path: Path) -> None:
    """Write what the build learned."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_atomically(path, bytes(cache.serialize()))
    except WriteError as error:
        logger.warning("the timing cache is not kept: %s", error)
