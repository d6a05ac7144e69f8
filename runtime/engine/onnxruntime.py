"""Run an exported model with ONNX Runtime, on the CPU or through CUDA."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from patchline.runtime import contract
from patchline.runtime.bank import Bank, as_bank, check_fits, check_given
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import EngineFacts, Prediction, Wait
from patchline.runtime.engine.onnx_checks import check_against_model, check_digest
from patchline.runtime.engine.session_options import session_options
from patchline.runtime.errors import (
    ConfigurationError,
    EngineError,
    MissingExtraError,
    ModelError,
)
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.preprocess import Frame, check_frames

logger = logging.getLogger(__name__)

PROVIDERS = ("auto", "cpu", "cuda")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class _Product:
    """What is judged by; exchanged as one, so that no frame meets parts of two.

    Attributes:
        manifest: of the product.
        inputs: the graph's inputs after ``frames`` as values of ONNX Runtime, where the product's
            bank is one of them.
    """

    manifest: Manifest
    inputs: Mapping[str, Any]


class OnnxRuntimeEngine:
    """An :class:`~patchline.runtime.engine.base.Engine` over an ONNX file.

    Args:
        path: the ``.onnx`` file; its manifest lies beside it.
        provider: ``cpu``, ``cuda`` (an error where it cannot be had), or ``auto``: CUDA where it
            works, otherwise the CPU, said in the log.
        threads: CPU threads of one inference; one per core by default.
        bank: a product's ``.bank`` file, for a graph without one.

    Raises:
        ConfigurationError: a graph without a bank, or a bank for a model that holds its own.
        ModelError: the file is missing or damaged, its manifest is missing, edited or newer, or
            the bank is damaged or for another graph.
        EngineError: ONNX Runtime or the asked provider is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        bank: Path | Bank | None = None,
    ) -> None:
        if provider not in PROVIDERS:
            raise ConfigurationError(f"provider is {provider!r}, expected one of {PROVIDERS}")
        if not path.is_file():
            raise ModelError(f"{path} does not exist. export-model writes it")
        self._path, self._graph = path, load_any_manifest(contract.manifest_path(path))
        check_given(self._graph, bank, path)
        check_digest(path, self._graph)
        self._runtime, self._threads = import_onnxruntime(), threads
        self._session: Any = self._open(path, provider, threads)
        check_against_model(self._session, self._graph, path)
        self._product = (
            _Product(self._graph, {})
            if isinstance(self._graph, Manifest)
            else self._take(self._graph, as_bank(cast("Path | Bank", bank)))
        )

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that runs; with an external bank, that of the bank."""
        return self._product.manifest

    @property
    def description(self) -> str:
        """ONNX Runtime's version and the provider that really runs."""
        return f"ONNX Runtime {self._runtime.__version__}, {self._provider}"

    @property
    def facts(self) -> EngineFacts:
        """How it runs."""
        is_cuda = self._provider == _CUDA
        return EngineFacts(
            runtime="ONNX Runtime",
            version=str(self._runtime.__version__),
            provider=self._provider,
            gpu=None,  # ONNX Runtime does not tell
            threads=self._threads,
            cuda_graph=False,
            wait=Wait.CUDA if is_cuda else Wait.NONE if self._threads == 1 else Wait.SPIN,
            least_batch=1,
            most_batch=None,
            in_flight=1,
        )

    def infer(self, frames: Frame) -> Prediction:
        """Judge uint8 ``[B, H, W, 3]`` frames; see :meth:`Engine.infer`."""
        if self._session is None:
            raise EngineError("the engine is closed")
        product = self._product  # once, since another may take its place meanwhile
        check_frames(frames, product.manifest.model_size)
        try:
            return Prediction(*self._run(np.ascontiguousarray(frames), product.inputs))
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def load_bank(self, bank: Path | Bank) -> None:
        """Judge by another product's bank from the next frame on; see :meth:`Engine.load_bank`."""
        if self._session is None:
            raise EngineError("the engine is closed")
        check_given(self._graph, bank, self._path)
        self._product = self._take(cast(GraphManifest, self._graph), as_bank(bank))

    def close(self) -> None:
        """Release the session and the bank. A second call does nothing."""
        self._session = None
        self._product = _Product(self._product.manifest, {})

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def _take(self, graph: GraphManifest, bank: Bank) -> _Product:
        check_fits(bank, graph, self._path)
        where = "cuda" if self._provider == _CUDA else "cpu"
        make = self._runtime.OrtValue.ortvalue_from_numpy
        try:
            inputs = {name: make(array, where, 0) for name, array in bank.tensors.items()}
        except Exception as error:  # as above
            raise EngineError(
                f"no room for {bank.path.name} ({bank.rows} rows): {_first_line(error)}. Close "
                "what else uses the GPU"
            ) from error
        return _Product(bank.manifest, inputs)

    def _run(self, frames: Frame, bank: Mapping[str, Any]) -> list[Any]:
        outputs = list(contract.OUTPUTS)
        if not bank:
            found: list[Any] = self._session.run(outputs, {contract.FRAMES: frames})
            return found
        # The bank stays where it was put: nothing of it is copied per frame.
        given = {contract.FRAMES: self._runtime.OrtValue.ortvalue_from_numpy(frames), **bank}
        return [value.numpy() for value in self._session.run_with_ort_values(outputs, given)]

    def _open(self, path: Path, provider: str, threads: int | None) -> Any:
        options = session_options(self._runtime)
        options.intra_op_num_threads = threads or 0
        wanted = self._providers(provider)
        if wanted[0] == _CPU:
            # A pattern reserves one block for all of a frame's tensors beside what the arena holds
            # already: 32 MiB more with a bank of 2,048 rows, and no faster (issue 7).
            options.enable_mem_pattern = False
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
