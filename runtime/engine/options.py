"""How an engine is opened: what ONNX Runtime and TensorRT are told."""

from __future__ import annotations

from dataclasses import dataclass

from patchline.runtime.engine.plans.record import BuildOptions


@dataclass(frozen=True)
class TensorRTOptions:
    """How a plan is opened, and built where it is not there or does not fit.

    Attributes:
        device: index of the GPU.
        flavour: ``tensorrt`` or ``tensorrt-rtx``; ``None`` takes the one that is installed.
        build: whether a plan that is missing or does not fit may be built; otherwise an error.
        cuda_graph: whether calls are replayed as CUDA graphs where ``cuda.bindings`` is installed.
        options: what a plan must have been built for; ``None`` takes the plan's own, and the
            defaults where there is none.
    """

    device: int = 0
    flavour: str | None = None
    build: bool = True
    cuda_graph: bool = True
    options: BuildOptions | None = None
