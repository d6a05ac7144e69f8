"""The engine of ``run-camera``: its options, which are ONNX Runtime's or TensorRT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchline.runtime.cli.command import FlavourName, Provider, print_warning, stderr_console

if TYPE_CHECKING:
    from patchline.runtime.engine import Engine
    from patchline.runtime.engine.options import TensorRTOptions
    from patchline.runtime.errors import DeviceLostError


@dataclass(frozen=True)
class EngineOptions:
    """What ``run-camera`` was asked to judge with.

    Attributes:
        path: the model, or its plan.
        bank: a product's memory bank, for a model without one.
        provider: where ONNX Runtime computes.
        threads: CPU threads per inference.
        device: index of the GPU that runs a plan.
        flavour: which TensorRT.
        no_build: whether a plan that does not fit is an error.
        no_cuda_graph: whether kernels are launched one by one.
    """

    path: Path
    bank: Path | None = None
    provider: Provider = Provider.AUTO
    threads: int | None = None
    device: int | None = None
    flavour: FlavourName | None = None
    no_build: bool = False
    no_cuda_graph: bool = False


def open_camera_engine(asked: EngineOptions) -> Engine:
    """Open what ``--engine`` names, as the other options say.

    Raises:
        ConfigurationError: an option that this kind of engine has no use for.
        ModelError: as :func:`~patchline.runtime.engine.open.open_engine`.
        EngineError: likewise.
    """
    from patchline.runtime.bank import load_bank
    from patchline.runtime.engine import open_engine
    from patchline.runtime.engine.recovery import RecoveringEngine
    from patchline.runtime.progress import ConsoleSteps

    options = tensorrt_options(asked)
    path, bank = asked.path, asked.bank
    if path.suffix.lower() != ".trt":
        return open_engine(path, provider=asked.provider.value, threads=asked.threads, bank=bank)
    steps = ConsoleSteps(stderr_console())
    # Read once: a recovery must not take another product's file that lies there by then.
    first = None if bank is None else load_bank(bank)
    return RecoveringEngine(
        lambda: open_engine(path, bank=first, tensorrt=options, steps=steps),
        on_recovery=_warn_of_loss,
    )


def tensorrt_options(asked: EngineOptions) -> TensorRTOptions:
    """What TensorRT is told, once no option is found that would do nothing.

    Raises:
        ConfigurationError: an option that this kind of engine has no use for.
    """
    from patchline.runtime.engine.options import TensorRTOptions

    plans = {
        "--device": asked.device,
        "--flavour": asked.flavour,
        "--no-build": asked.no_build or None,
        "--no-cuda-graph": asked.no_cuda_graph or None,
    }
    is_auto = asked.provider is Provider.AUTO
    onnx = {"--provider": None if is_auto else asked.provider, "--threads": asked.threads}
    is_plan = asked.path.suffix.lower() == ".trt"
    _check_unused(asked.path, onnx if is_plan else plans, ".onnx" if is_plan else ".trt")
    return TensorRTOptions(
        device=asked.device or 0,
        flavour=asked.flavour.value if asked.flavour else None,
        build=not asked.no_build,
        cuda_graph=not asked.no_cuda_graph,
    )


def _warn_of_loss(error: DeviceLostError) -> None:
    print_warning(f"{error}. The engine is opened again and the frame judged again")


def _check_unused(path: Path, options: Mapping[str, Any], suffix: str) -> None:
    from patchline.runtime.errors import ConfigurationError

    given = ", ".join(name for name, value in options.items() if value is not None)
    if given:
        raise ConfigurationError(
            f"{given} would do nothing with {path.name}: for {suffix} files only. Leave it out"
        )
