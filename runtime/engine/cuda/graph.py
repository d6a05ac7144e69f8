"""CUDA graphs through ``cuda.bindings``: one launch in place of dozens (DESIGN section 5).

pycuda has no call for it, and ``cuda.bindings`` is optional: without it, or where a capture fails,
everything is as right and a little slower.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from patchline.runtime.engine.cuda.errors import failure
from patchline.runtime.engine.cuda.objects import Stream

logger = logging.getLogger(__name__)

_SUCCESS = 0


class CudaGraph:
    """What was queued while it was captured, ready to be queued again at once."""

    def __init__(self, driver: Any, graph: Any, executable: Any) -> None:
        self._driver = driver
        self._graph = graph
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Queue it.

        Raises:
            DeviceLostError: the GPU is lost.
            EngineError: it is refused otherwise.
        """
        _checked(self._driver.cuGraphLaunch(self._executable, stream.handle), "launch")

    def release(self) -> None:
        """Destroy it; the GPU must be done with it."""
        graph, self._graph = self._graph, None
        if graph is not None:
            self._driver.cuGraphExecDestroy(self._executable)
            self._driver.cuGraphDestroy(graph)


class GraphMaker:
    """Captures graphs for as long as that works.

    Args:
        is_wanted: ``False`` never captures.

    Attributes:
        is_on: whether graphs are made.
    """

    def __init__(self, is_wanted: bool) -> None:
        self._driver = _import_driver() if is_wanted else None

    @property
    def is_on(self) -> bool:
        """Whether graphs are made."""
        return self._driver is not None

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> CudaGraph | None:
        """Capture what ``enqueue`` queues; nothing of it is run.

        It must have been run plainly just before, since TensorRT settles what depends on shapes in
        the first run after they change.

        Args:
            stream: where it queues.
            enqueue: queues it.

        Returns:
            The graph; ``None`` where there are none, from the first failure on.
        """
        if self._driver is None:
            return None
        try:
            return _capture(self._driver, stream, enqueue)
        except Exception as error:  # of whatever version of cuda.bindings this is
            self._driver = None
            logger.warning(
                "CUDA graphs are off from here on, they cannot be captured: %s", str(error)
            )
            return None


def _capture(driver: Any, stream: Stream, enqueue: Callable[[], None]) -> CudaGraph:
    # Of this thread alone: what other threads do with CUDA meanwhile must not end it.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(driver.cuStreamBeginCapture(stream.handle, mode), "begin")
    try:
        enqueue()
    except BaseException:
        # A stream that goes on capturing can be used for nothing else.
        _discard(driver, driver.cuStreamEndCapture(stream.handle))
        raise
    graph = _checked(driver.cuStreamEndCapture(stream.handle), "end")
    try:
        executable = _checked(driver.cuGraphInstantiate(graph, 0), "instantiate")
    except BaseException:
        driver.cuGraphDestroy(graph)
        raise
    return CudaGraph(driver, graph, executable)


def _discard(driver: Any, ended: tuple[Any, ...]) -> None:
    code, *graph = ended
    if int(code) == _SUCCESS:
        driver.cuGraphDestroy(graph[0])


def _checked(answer: tuple[Any, ...], what: str) -> Any:
    code, *values = answer
    if int(code) != _SUCCESS:
        raise failure(f"CUDA graph, {what}", str(getattr(code, "name", code)))
    return values[0] if values else None


def _import_driver() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except Exception as error:  # not installed, or installed and not loading here
        logger.info("no CUDA graphs: %s", error)
        return None
