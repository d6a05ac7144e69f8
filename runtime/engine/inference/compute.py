"""A plan's TensorRT engine, and the scratch memory that all its contexts share."""

from __future__ import annotations

from typing import Any

from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.cuda.errors import failure
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.cuda.graph import GraphMaker
from patchline.runtime.engine.cuda.objects import Stream
from patchline.runtime.engine.cuda.resources import Resources
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.engine.plans.plan_file import PlanFile, deserialize
from patchline.runtime.errors import EngineError

_LEAST_BYTES = 256


class Compute:
    """A plan's engine, and what all its contexts share.

    Args:
        file: the checked plan.
        flavour: the TensorRT that runs it.
        stream: of everything it computes.
        graphs: captures it.

    Attributes:
        engine: TensorRT's; ``None`` until it is opened.
        log: what TensorRT writes to; others of this process share it.
    """

    def __init__(
        self, file: PlanFile, flavour: Flavour, stream: Stream, graphs: GraphMaker
    ) -> None:
        self.plan, self.flavour, self.stream, self.graphs = file.path, flavour, stream, graphs
        self.log: Any = shared_log(flavour.trt)
        self.engine: Any = None
        self._file = file
        self._runtime: Any = None
        self._memory_address = self._memory_bytes = 0

    def open(self) -> None:
        """Deserialise the plan.

        Raises:
            EngineError: TensorRT refuses it.
        """
        self._runtime = self.flavour.trt.Runtime(self.log)
        self.engine = deserialize(self._file, self.flavour, self._runtime, self.log)

    def allocate(self, gpu: Gpu, resources: Resources) -> None:
        """Make the scratch memory that the contexts share.

        Raises:
            EngineError: there is no room for it (says how much was asked).
        """
        self._memory_bytes = max(_LEAST_BYTES, int(self.engine.device_memory_size_v2))
        memory = gpu.allocate(self._memory_bytes, f"what {self.plan.name} computes in")
        resources.memory.add(memory)
        self._memory_address = memory.address

    def make_context(self) -> Any:
        """A context in the shared memory.

        Raises:
            EngineError: TensorRT makes none.
        """
        self.log.errors = []
        strategy = self.flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.engine.create_execution_context(strategy)
        if context is None:
            raise self.failed("makes no execution context")
        context.set_device_memory(self._memory_address, self._memory_bytes)
        return context

    def failed(self, what: str) -> EngineError:
        """The error for a call that was refused, with the reason from the log."""
        reason = self.log.errors[-1] if self.log.errors else "no reason given"
        return failure(f"{self.flavour} {what} for {self.plan.name}", reason)

    def release(self) -> None:
        """Let go of the engine, then of TensorRT's runtime."""
        self.engine = None
        self._runtime = None
