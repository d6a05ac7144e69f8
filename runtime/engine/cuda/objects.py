"""Streams, events and memory of pycuda, each released by a call and not by Python's leave.

pycuda releases an object when Python drops it, which a traceback that still holds a frame puts off
until after the context is gone. These hold the only reference and drop it when they are told to.
They are made by :class:`~patchline.runtime.engine.cuda.gpu.Gpu`, and used while it is current.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING; pycuda has no name for it
_DISABLE_TIMING: Final = 2  # CU_EVENT_DISABLE_TIMING


class Event:
    """A mark in a stream that others wait for; ``is_timed`` makes one that knows when it was."""

    def __init__(self, driver: Any, is_timed: bool = False) -> None:
        self._event: Any = driver.Event(0 if is_timed else _DISABLE_TIMING)

    def record(self, stream: Stream) -> None:
        """Mark what ``stream`` has been given so far."""
        self._event.record(stream.raw)

    def make_wait(self, stream: Stream) -> None:
        """Let what ``stream`` is given from now on wait for the last mark."""
        stream.raw.wait_for_event(self._event)

    def synchronize(self) -> None:
        """Wait for the last mark; at once where there is none."""
        self._event.synchronize()

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds of the GPU's clock between two timed marks that were reached."""
        return float(self._event.time_since(earlier._event))

    def release(self) -> None:
        """Destroy it."""
        self._event = None


class Stream:
    """A queue of work on the GPU; copies return before they are done."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.raw: Any = driver.Stream(_NON_BLOCKING)
        self.handle = int(self.raw.handle)

    def upload(self, array: npt.NDArray[Any], buffer: DeviceBuffer) -> None:
        """Queue a copy to the GPU; ``array`` is contiguous, pinned, and left alone until then."""
        self._driver.memcpy_htod_async(buffer.address, array, self.raw)

    def download(self, buffer: DeviceBuffer, array: npt.NDArray[Any]) -> None:
        """Queue a copy from the GPU; ``array`` is contiguous and pinned."""
        self._driver.memcpy_dtoh_async(array, buffer.address, self.raw)

    def synchronize(self) -> None:
        """Wait for all it was given."""
        self.raw.synchronize()

    def release(self) -> None:
        """Destroy it."""
        self.raw = None


class DeviceBuffer:
    """Memory on the GPU."""

    def __init__(self, driver: Any, n_bytes: int) -> None:
        self._allocation: Any = driver.mem_alloc(n_bytes)
        self.address = int(self._allocation)

    def release(self) -> None:
        """Free it."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class PinnedArray:
    """Host memory that does not move; ``array`` is a view of it."""

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.array: npt.NDArray[Any] = driver.pagelocked_empty(shape, np.dtype(dtype))
        self._allocation: Any = self.array.base
        self.array.fill(0)

    def release(self) -> None:
        """Free it."""
        allocation, self._allocation = self._allocation, None
        self.array = np.empty(0)
        if allocation is not None:
            allocation.free()
