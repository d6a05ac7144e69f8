"""What an engine holds on the GPU, released in the order that CUDA and TensorRT need, once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from patchline.runtime.engine.cuda.gpu import Gpu

logger = logging.getLogger(__name__)


class Releasable(Protocol):
    """Anything that is released by a call."""

    def release(self) -> None:
        """Release it."""


class Resources:
    """Layers that are released from the last to the first, whatever one of them raises.

    From first to last: the context of the GPU, memory, streams, events, TensorRT's objects, and
    then a wait for all that is under way, so that nothing is freed while the GPU works with it.

    Args:
        gpu: where they are; closed at the very end.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._layers = contextlib.ExitStack()
        self.memory = self._layer()
        self.streams = self._layer()
        self.events = self._layer()
        self.tensorrt = self._layer()
        self.waits = self._layer()

    def close(self) -> None:
        """Release everything. What fails is said in the log and does not stop the rest."""
        try:
            _safely(self._release_on_gpu)
        finally:
            self._layers.close()  # there is something left where the GPU could not be made current
            _safely(self._gpu.close)

    def _release_on_gpu(self) -> None:
        with self._gpu.current():
            self._layers.close()

    def _layer(self) -> Layer:
        return Layer(self._layers.enter_context(contextlib.ExitStack()))


class Layer:
    """Things that are released together, the last one first."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def add(self, *things: Releasable) -> None:
        """Release these when the layer is released."""
        for thing in things:
            self._stack.callback(_safely, thing.release)

    def call(self, function: Callable[[], Any]) -> None:
        """Call this when the layer is released."""
        self._stack.callback(_safely, function)


def _safely(function: Callable[[], Any]) -> None:
    # Broad, because what a broken driver raises here is anybody's guess, and the rest must go on.
    try:
        function()
    except Exception as error:
        logger.warning("not everything on the GPU was released: %s", str(error))


def release_all(releases: Sequence[Callable[[], None]]) -> None:
    """Release things that are in no layer, the last one first, whatever one of them raises."""
    with contextlib.ExitStack() as stack:
        for release in releases:
            stack.callback(_safely, release)
