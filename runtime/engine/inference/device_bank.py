"""A product's memory bank in GPU memory, for a plan that takes it as inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np

from patchline.runtime.bank import Bank
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.cuda.objects import DeviceBuffer, Stream
from patchline.runtime.engine.cuda.resources import release_all
from patchline.runtime.engine.inference.plan_io import Shape


class DeviceBank:
    """The tensors of a bank on the GPU; on a failure nothing of them stays there.

    Args:
        bank: what is uploaded.
        names: the tensors of it that the plan takes.
        gpu: where to; it is current.
        stream: of uploads; waited for.

    Attributes:
        manifest: of the product.
        shapes: of the tensors, by name.
        buffers: of the tensors, by name.

    Raises:
        EngineError: there is no room for it (says how much was asked).
    """

    def __init__(self, bank: Bank, names: Iterable[str], gpu: Gpu, stream: Stream) -> None:
        self.manifest: Manifest = bank.manifest
        self.shapes: dict[str, Shape] = {}
        self.buffers: dict[str, DeviceBuffer] = {}
        try:
            for name in names:
                self._upload(bank, name, gpu, stream)
        except BaseException:
            with contextlib.suppress(Exception):  # an upload may be under way
                stream.synchronize()
            self.release()
            raise

    def _upload(self, bank: Bank, name: str, gpu: Gpu, stream: Stream) -> None:
        array = np.ascontiguousarray(bank.tensors[name])
        buffer = gpu.allocate(array.nbytes, f"{name} of {bank.path.name}")
        self.shapes[name], self.buffers[name] = array.shape, buffer
        # Not CUDA's synchronous copy: from pageable memory that returns before the data is there,
        # and streams that wait for no other would not wait for it.
        stream.upload(array, buffer)
        stream.synchronize()

    def release(self) -> None:
        """Free it; the GPU must be done with it."""
        release_all([buffer.release for buffer in self.buffers.values()])
        self.buffers = {}
