"""Execution contexts of a plan: one for each batch size and slot, all with one bank.

A CUDA graph is only good for as long as its context is never given other shapes or addresses, so
each graph has a context of its own, and nothing is set again from one frame to the next. The
contexts share their scratch memory: they run one after the other, on one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchline.runtime import contract
from patchline.runtime.engine.cuda.graph import CudaGraph
from patchline.runtime.engine.cuda.resources import release_all
from patchline.runtime.engine.inference.compute import Compute
from patchline.runtime.engine.inference.device_bank import DeviceBank
from patchline.runtime.engine.inference.plan_io import Shape
from patchline.runtime.engine.inference.slots import Slot
from patchline.runtime.errors import ModelError


class Run:
    """One batch size in one slot.

    Args:
        compute: what runs it.
        batch: frames.
        slot: where they are.
        bank: the inputs that are no frames; ``None`` for a plan with its own bank.

    Raises:
        EngineError: TensorRT refuses the shapes or addresses.
        ModelError: the outputs have other shapes than the manifest says.
    """

    def __init__(self, compute: Compute, batch: int, slot: Slot, bank: DeviceBank | None) -> None:
        self._compute = compute
        self._graph: CudaGraph | None = None
        self._is_captured = False
        self._context: Any = compute.make_context()
        try:
            self._set_shape(contract.FRAMES, (batch, *slot.frame_shape))
            for name, address in slot.addresses.items():
                self._set_address(name, address)
            if bank is not None:
                self._take_bank(bank)
            self._check_outputs(slot, batch)
        except BaseException:
            self.release()
            raise

    def start(self) -> None:
        """Queue it.

        Raises:
            DeviceLostError: the GPU is lost.
            EngineError: TensorRT refuses.
        """
        if self._graph is not None:
            self._graph.launch(self._compute.stream)
        else:
            self._enqueue()

    def capture(self) -> None:
        """Capture it for the next time, once; right after it was queued."""
        if not self._is_captured:
            self._is_captured = True
            self._graph = self._compute.graphs.capture(self._compute.stream, self._enqueue)

    def release_graph(self) -> None:
        """Destroy the graph, if there is one; the GPU must be done with it."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.release()

    def release(self) -> None:
        """Destroy the context; its graph must be gone, and the GPU done with it."""
        self._context = None

    def _enqueue(self) -> None:
        self._compute.log.errors = []
        if not self._context.execute_async_v3(self._compute.stream.handle):
            raise self._compute.failed("does not run")

    def _take_bank(self, bank: DeviceBank) -> None:
        for name, buffer in bank.buffers.items():
            self._set_shape(name, bank.shapes[name])
            self._set_address(name, buffer.address)

    def _set_shape(self, name: str, shape: Shape) -> None:
        if not self._context.set_input_shape(name, shape):
            raise self._compute.failed(f"refuses {name} {list(shape)}")

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._compute.failed(f"refuses the address of {name}")

    def _check_outputs(self, slot: Slot, batch: int) -> None:
        for name, expected in slot.output_shapes(batch).items():
            found = tuple(self._context.get_tensor_shape(name))
            if found != expected:
                raise ModelError(
                    f"{self._compute.plan}: {name} of {batch} frames is {list(found)}, expected "
                    f"{list(expected)}. Build the plan again from the exported model"
                )


class Runs:
    """All that runs with one bank, made when it is first needed.

    Args:
        compute: what runs them.
        slots: where frames and outputs are.
        bank: the inputs that are no frames, if any.
    """

    def __init__(self, compute: Compute, slots: Sequence[Slot], bank: DeviceBank | None) -> None:
        self._compute, self._slots, self._bank = compute, slots, bank
        self._runs: dict[tuple[int, int], Run] = {}

    def get(self, batch: int, slot: int) -> Run:
        """The run of a batch size in a slot."""
        key = (batch, slot)
        if key not in self._runs:
            self._runs[key] = Run(self._compute, batch, self._slots[slot], self._bank)
        return self._runs[key]

    def with_bank(self, bank: DeviceBank) -> Runs:
        """The same runs with another bank, made already; on a failure nothing is left of them."""
        runs = Runs(self._compute, self._slots, bank)
        try:
            for batch, slot in self._runs:
                runs.get(batch, slot)
        except BaseException:
            runs.release()
            raise
        return runs

    def release(self) -> None:
        """Destroy all of them; the GPU must be done with them."""
        runs, self._runs = list(self._runs.values()), {}
        release_all([run.release for run in runs] + [run.release_graph for run in runs])
