"""Run an exported model with ONNX Runtime, on the CPU or through CUDA."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from patchline.runtime import contract
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Prediction
from patchline.runtime.errors import (
    ConfigurationError,
    EngineError,
    ManifestError,
    MissingExtraError,
    ModelError,
)
from patchline.runtime.preprocess import RESIZE, Frame, check_frames

logger = logging.getLogger(__name__)

PROVIDERS = ("auto", "cpu", "cuda")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_FATAL = 4  # ONNX Runtime's own log level: failures reach the caller as exceptions


class OnnxRuntimeEngine:
    """An :class:`~patchline.runtime.engine.base.Engine` over an ONNX file.

    Args:
        path: the ``.onnx`` file; its manifest lies beside it.
        provider: ``cpu``, ``cuda`` (an error where it cannot be had), or ``auto``: CUDA where it
            works, otherwise the CPU, said in the log.
        threads: CPU threads of one inference; one per core by default.

    Raises:
        ModelError: the file is missing or damaged, or its manifest is missing, edited or newer.
        EngineError: ONNX Runtime or the asked provider is not there.
    """

    def __init__(self, path: Path, *, provider: str = "auto", threads: int | None = None) -> None:
        if provider not in PROVIDERS:
            raise ConfigurationError(f"provider is {provider!r}, expected one of {PROVIDERS}")
        if not path.is_file():
            raise ModelError(f"{path} does not exist. export-model writes it")
        self._manifest = contract.load_manifest(contract.manifest_path(path))
        _check_digest(path, self._manifest)
        self._runtime = import_onnxruntime()
        self._session: Any = self._open(path, provider, threads)
        _check_against_model(self._session, self._manifest, path)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that runs."""
        return self._manifest

    @property
    def description(self) -> str:
        """ONNX Runtime's version and the provider that really runs."""
        return f"ONNX Runtime {self._runtime.__version__}, {self._provider}"

    def infer(self, frames: Frame) -> Prediction:
        """Judge uint8 ``[B, H, W, 3]`` frames; see :meth:`Engine.infer`."""
        if self._session is None:
            raise EngineError("the engine is closed")
        check_frames(frames, self._manifest.model_size)
        inputs = {contract.FRAMES: np.ascontiguousarray(frames)}
        try:
            return Prediction(*self._session.run(list(contract.OUTPUTS), inputs))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def close(self) -> None:
        """Release the session. A second call does nothing."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def _open(self, path: Path, provider: str, threads: int | None) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads or 0
        wanted = self._providers(provider)
        try:
            session = self._runtime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime cannot open {path}: {_first_line(error)}") from error
        self._provider: str = session.get_providers()[0]
        # ONNX Runtime lists CUDA and then runs on the CPU without a word where CUDA fails to load.
        if self._provider != wanted[0]:
            message = f"{wanted[0]} did not load here; the model runs on {self._provider}"
            if provider == "cuda":
                raise EngineError(f"{message}. Use --provider cpu, or install a CUDA that fits")
            logger.warning(message)
        return session

    def _providers(self, provider: str) -> list[str]:
        available = self._runtime.get_available_providers()
        if provider == "cuda" and _CUDA not in available:
            raise MissingExtraError(
                "this ONNX Runtime has no CUDA. Install it with: "
                'pip uninstall onnxruntime && pip install "patchline[gpu]"'
            )
        use_cuda = provider != "cpu" and _CUDA in available
        return [_CUDA, _CPU] if use_cuda else [_CPU]


def import_onnxruntime() -> Any:
    """ONNX Runtime, with its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            'ONNX Runtime is not installed. Install it with: pip install "patchline[cpu]" '
            '(or "patchline[gpu]" on a machine with CUDA)'
        ) from error
    # A line without a network, and pictures that are nobody else's business: nothing is reported.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _check_digest(path: Path, manifest: Manifest) -> None:
    if manifest.onnx is None:
        raise ManifestError(f"{contract.manifest_path(path)}: onnx: the field is missing")
    found = contract.model_digest(path)
    if found != manifest.onnx.sha256:
        raise ManifestError(
            f"{contract.manifest_path(path)}: onnx.sha256 is {manifest.onnx.sha256[:12]}…, but "
            f"{path.name} has {found[:12]}…. The two files are not from the same export, or one "
            "was changed: copy both again"
        )


def _check_against_model(session: Any, manifest: Manifest, path: Path) -> None:
    beside = contract.manifest_path(path)
    text = session.get_modelmeta().custom_metadata_map.get(contract.METADATA_KEY)
    if text is None:
        raise ModelError(f"{path} holds no {contract.METADATA_KEY}: it is no Patchline model")
    differences = contract.differing_fields(manifest, contract.parse_manifest(text, str(path)))
    if differences:
        raise ManifestError(f"{beside} was edited. {'; '.join(differences)}")
    if manifest.preprocessing.resize != RESIZE:
        raise ManifestError(
            f"{beside}: preprocessing.resize is {manifest.preprocessing.resize!r}, and this "
            f"Patchline resizes by {RESIZE!r}. Export the model again"
        )
    names = [item.name for item in session.get_outputs()]
    if names != list(contract.OUTPUTS) or session.get_inputs()[0].name != contract.FRAMES:
        raise ModelError(f"{path} has outputs {names}, expected {list(contract.OUTPUTS)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
