"""TensorRT's flavours: which one is here, and all that differs between them (DESIGN section 5).

TensorRT for RTX has the same API under another module name. What is taken from the module
elsewhere exists in every supported version; a test holds it against the lists of names.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from patchline.runtime.errors import ConfigurationError, EngineError, MissingExtraError

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
FLAVOURS = (TENSORRT, TENSORRT_RTX)

_MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_OLDEST = {TENSORRT: (10, 3), TENSORRT_RTX: (1, 0)}


@dataclass(frozen=True)
class Flavour:
    """An installed TensorRT.

    Attributes:
        name: one of :data:`FLAVOURS`.
        trt: its Python module.
        version: of the libraries, such as ``10.3.0``.
    """

    name: str
    trt: Any
    version: str

    @property
    def has_timing_cache(self) -> bool:
        """Whether a build can learn from earlier ones; TensorRT for RTX compiles when it runs."""
        return self.name == TENSORRT

    def __str__(self) -> str:
        title = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT for RTX"}[self.name]
        return f"{title} {self.version}"


def load_flavour(name: str | None = None) -> Flavour:
    """The TensorRT that is installed, or the one asked for.

    Args:
        name: one of :data:`FLAVOURS`; ``None`` takes TensorRT, and TensorRT for RTX without it.

    Raises:
        ConfigurationError: there is no flavour of that name.
        MissingExtraError: it is not installed (gives the install command).
        EngineError: it is older than Patchline supports.
    """
    if name is not None and name not in FLAVOURS:
        raise ConfigurationError(f"flavour is {name!r}, expected one of: {', '.join(FLAVOURS)}")
    for flavour in FLAVOURS if name is None else (name,):
        for module in _MODULES[flavour]:
            trt = _import(module)
            if trt is not None:
                return _checked(Flavour(flavour, trt, str(trt.__version__)))
    wanted = name or TENSORRT
    raise MissingExtraError(
        f"{'TensorRT for RTX' if wanted == TENSORRT_RTX else 'TensorRT'} is not installed. On a "
        "Jetson it comes with JetPack (make the environment with --system-site-packages); "
        f'elsewhere install it with: pip install "patchline[{wanted}]"'
    )


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and something that it needs is not
            raise EngineError(f"{module} does not load: {error}") from error
        return None
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{module} does not load: {error}. Its libraries do not fit this machine"
        ) from error


def _checked(flavour: Flavour) -> Flavour:
    found = tuple(int(part) for part in flavour.version.split(".")[:2])
    oldest = _OLDEST[flavour.name]
    if found < oldest:
        raise EngineError(
            f"{flavour} is too old: Patchline needs {'.'.join(map(str, oldest))} or newer "
            "(JetPack 6.1 has it)"
        )
    return flavour
