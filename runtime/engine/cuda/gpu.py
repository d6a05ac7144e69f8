"""CUDA through pycuda, and the only module that touches it (DESIGN section 5).

pycuda is imported when a GPU is opened and not before: without a driver the import itself fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from patchline.runtime.engine.cuda.errors import cuda_errors, no_room
from patchline.runtime.engine.cuda.objects import DeviceBuffer, Event, PinnedArray, Stream
from patchline.runtime.engine.plans.record import Device
from patchline.runtime.errors import DeviceLostError, EngineError, MissingExtraError

logger = logging.getLogger(__name__)


class Gpu:
    """A GPU whose primary context is current in the thread that opened it, until it is closed.

    Attributes:
        device: model and compute capability.
        total_bytes: its memory; on a Jetson shared with the CPU.
    """

    def __init__(self, driver: Any, index: int) -> None:
        handle = driver.Device(index)
        major, minor = handle.compute_capability()
        self.device = Device(gpu=str(handle.name()), compute_capability=f"{major}.{minor}")
        self.total_bytes = int(handle.total_memory())
        self._driver = driver
        self._index = index
        self._is_lost = False
        self._context: Any = handle.retain_primary_context()
        try:
            self._context.push()
        except BaseException:
            self._context.detach()
            raise

    @property
    def free_bytes(self) -> int:
        """Memory that nobody uses now."""
        with self.current():
            return int(self._driver.mem_get_info()[0])

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this GPU the one that calls go to, and let CUDA's errors out as ours.

        It is so already after :func:`open_gpu`, unless another one was opened since.

        Raises:
            DeviceLostError: the GPU is lost.
            EngineError: CUDA failed otherwise, or the GPU is closed.
        """
        if self._context is None:
            raise EngineError("the GPU is closed")
        try:
            with cuda_errors(self._driver):
                self._context.push()
                try:
                    yield
                finally:
                    self._driver.Context.pop()
        except DeviceLostError:
            self._is_lost = True
            raise

    def stream(self) -> Stream:
        """A stream that waits for no other, the default one included."""
        return Stream(self._driver)

    def event(self, is_timed: bool = False) -> Event:
        """An event for ordering; one that takes the time as well costs more."""
        return Event(self._driver, is_timed)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> PinnedArray:
        """Host memory that the GPU copies from and to while the CPU goes on; zeroed.

        Raises:
            EngineError: there is not enough of it.
        """
        asked = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            return PinnedArray(self._driver, shape, dtype)
        except self._driver.MemoryError as error:
            raise EngineError(
                f"the machine has no room for {asked} bytes of pinned memory. Build a plan of a "
                "smaller largest batch (build-engine --batch 1:1:1)"
            ) from error

    def allocate(self, n_bytes: int, what: str) -> DeviceBuffer:
        """Memory on the GPU.

        Args:
            n_bytes: how much.
            what: it is for, for the message.

        Raises:
            EngineError: there is not enough of it (says how much is free).
        """
        try:
            return DeviceBuffer(self._driver, n_bytes)
        except self._driver.MemoryError as error:
            free, total = self._driver.mem_get_info()
            raise no_room(n_bytes, what, free, total) from error

    def close(self) -> None:
        """Give the context back. Never raises; a second call does nothing.

        Not inside of :meth:`current`, which has a context to give back itself.
        """
        context, self._context = self._context, None
        if context is None:
            return
        self._quietly(lambda: self._pop(context))
        self._quietly(context.detach)
        if self._is_lost:
            _reset_primary_context(self._index)

    def _pop(self, context: Any) -> None:
        if self._driver.Context.get_current() == context:  # not another that was opened since
            self._driver.Context.pop()

    def _quietly(self, step: Callable[[], None]) -> None:
        try:
            step()
        except self._driver.Error as error:
            logger.warning("the GPU's context was not given back: %s", str(error))


def open_gpu(index: int = 0) -> Gpu:
    """Make a GPU's primary context current in this thread.

    Args:
        index: of the GPU, from 0.

    Raises:
        MissingExtraError: pycuda is not installed (gives the install command).
        EngineError: there is no driver, or no such GPU.
    """
    driver = _import_driver()
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise EngineError(
            f"CUDA does not start here: {error}. Does nvidia-smi run? On a Jetson the user must be "
            "in the group video"
        ) from error
    if not 0 <= index < count:
        has = f"{count} GPU{'s' * (count != 1)}, numbered from 0" if count else "no GPU"
        raise EngineError(f"GPU {index} does not exist: this machine has {has}. See --device")
    with cuda_errors(driver, f"GPU {index} does not open"):
        return Gpu(driver, index)


def _import_driver() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        if error.name not in ("pycuda", "pycuda.driver"):
            raise EngineError(f"pycuda does not load: {error}") from error
        raise MissingExtraError(
            "pycuda is not installed. On a Jetson install it with: CUDA_ROOT=/usr/local/cuda pip "
            'install pycuda; elsewhere with: pip install "patchline[tensorrt]"'
        ) from error
    except ImportError as error:
        raise EngineError(
            f"pycuda does not load: {error}. This machine has no NVIDIA driver, or pycuda was "
            "built for another CUDA: build it again with CUDA_ROOT=/usr/local/cuda pip install "
            "--no-cache-dir --force-reinstall pycuda"
        ) from error


def _reset_primary_context(index: int) -> None:
    # A broken primary context comes back broken for as long as anybody in the process retains it,
    # and TensorRT's own CUDA runtime does. pycuda has no call for the reset.
    try:
        code = ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxReset_v2(index)
    except (OSError, AttributeError) as error:
        code = error
    if code != 0:
        logger.warning("GPU %d was lost and its context could not be reset: %s", index, code)
