"""Open the engine that a file name asks for."""

from __future__ import annotations

from pathlib import Path

from patchline.runtime.engine.base import Engine
from patchline.runtime.errors import ConfigurationError


def open_engine(path: Path, *, provider: str = "auto", threads: int | None = None) -> Engine:
    """Open an exported model with the engine its suffix names.

    Args:
        path: ``.onnx``, with its manifest beside it.
        provider: for ONNX Runtime: ``auto``, ``cpu`` or ``cuda``.
        threads: for ONNX Runtime: CPU threads; one per core by default.

    Raises:
        ConfigurationError: no engine runs files of this suffix.
        ModelError: the model or its manifest is missing, damaged or edited.
        EngineError: the engine cannot be opened here.
    """
    if path.suffix.lower() == ".onnx":
        from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, provider=provider, threads=threads)
    raise ConfigurationError(
        f"no engine runs {path.name!r}: expected a model file ending in .onnx "
        "(export-model writes one)"
    )
