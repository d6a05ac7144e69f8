"""Open the engine that a file name asks for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.runtime.engine.base import Engine
from patchline.runtime.engine.options import TensorRTOptions
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import SilentSteps, Steps

if TYPE_CHECKING:
    from patchline.runtime.bank import Bank

logger = logging.getLogger(__name__)

_DEFAULTS = TensorRTOptions()
_SILENT = SilentSteps()


def open_engine(
    path: Path,
    *,
    provider: str = "auto",
    threads: int | None = None,
    bank: Path | Bank | None = None,
    tensorrt: TensorRTOptions = _DEFAULTS,
    steps: Steps = _SILENT,
) -> Engine:
    """Open an exported model with the engine its suffix names.

    Args:
        path: ``.onnx`` for ONNX Runtime or ``.trt`` for TensorRT, its manifest beside it.
        provider: for ONNX Runtime: ``auto``, ``cpu`` or ``cuda``.
        threads: for ONNX Runtime: CPU threads; one per core by default.
        bank: a product's ``.bank`` file, or what was read from one, for a model that was exported
            without one.
        tensorrt: for TensorRT: the GPU, and whether a plan that does not fit is built again.
        steps: shows the progress of such a build.

    Raises:
        ConfigurationError: no engine runs files of this suffix, or a bank is missing or unwanted.
        ModelError: the model, its manifest or the bank is missing, damaged or edited.
        EngineError: the engine cannot be opened here.
    """
    if path.suffix.lower() == ".onnx":
        from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, provider=provider, threads=threads, bank=bank)
    if path.suffix.lower() == ".trt":
        return _open_plan(path, bank, tensorrt, steps)
    raise ConfigurationError(
        f"no engine runs {path.name!r}: expected a model file ending in .onnx (export-model "
        "writes one) or .trt (build-engine makes one of it)"
    )


def _open_plan(
    path: Path, bank: Path | Bank | None, tensorrt: TensorRTOptions, steps: Steps
) -> Engine:
    from patchline.runtime.bank import as_bank, check_fits, check_given
    from patchline.runtime.contract import manifest_path
    from patchline.runtime.engine.compat import load_flavour
    from patchline.runtime.engine.cuda.gpu import open_gpu
    from patchline.runtime.engine.plans.ready_plan import ready_plan
    from patchline.runtime.engine.tensorrt import TensorRTEngine
    from patchline.runtime.graph import GraphManifest, load_any_manifest

    # Before minutes of building: what can be known to be wrong now.
    model = load_any_manifest(manifest_path(path))
    check_given(model, bank, path)
    if bank is not None and isinstance(model, GraphManifest):
        bank = as_bank(bank)
        check_fits(bank, model, path)
    flavour = load_flavour(tensorrt.flavour)
    gpu = open_gpu(tensorrt.device)
    try:
        ready_plan(path, flavour, gpu.device, tensorrt, steps, logger.warning)
        return TensorRTEngine(
            path, flavour=flavour, gpu=gpu, bank=bank, cuda_graph=tensorrt.cuda_graph
        )
    except BaseException:
        gpu.close()
        raise
