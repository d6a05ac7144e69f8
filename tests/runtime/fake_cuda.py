"""A GPU in memory: streams that run late and in any order that CUDA allows, and all that is freed.

Whatever is asynchronous in CUDA is queued here and done later, so that a wait that is missing gives
wrong numbers. What no program may do (use freed memory, leave work behind) is a *violation*, kept
in a list, because the code under test may swallow an exception.
"""

from __future__ import annotations

import collections
import enum
import random
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

MOODS = ("lazy", "eager", "random", "priority")
"""When and in which order queued work is done: at the last moment, at once, anyhow, by stream."""

_ORDER = ("graph", "context", "engine", "runtime", "event", "stream", "memory", "cuda context")


class Error(Exception):
    """pycuda's."""


class LogicError(Error):
    pass


class MemoryError(Error):
    pass


class LaunchError(Error):
    pass


@dataclass
class Op:
    """One piece of queued work."""

    name: str
    work: Callable[[], None]
    is_ready: Callable[[], bool] = lambda: True


@dataclass
class Fault:
    """Let the n-th call fail; ``lost`` breaks everything after it too."""

    at: int
    text: str = "invalid argument"
    is_lost: bool = False


@dataclass
class World:
    """The GPU and what happened to it."""

    seed: int = 0
    mood: str = "random"
    total_bytes: int = 1 << 30
    fault: Fault | None = None
    calls: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    live: collections.Counter[str] = field(default_factory=collections.Counter)
    takes_ms: dict[str, float] = field(default_factory=dict)
    now_ms: float = 0.0
    is_lost: bool = False
    fails_on_release: str = ""
    released_before_closing: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.streams: dict[int, Stream] = {}
        self.ranks: dict[int, float] = {}
        self.memory: dict[int, np.ndarray] = {}
        self.next_address = 1 << 20
        self.contexts: list[Any] = []
        self.retained = 0

    # calls

    def call(self, name: str) -> bool:
        """Count a call; whether it must fail."""
        self.calls.append(name)
        if self.fault is not None and len(self.calls) == self.fault.at:
            self.is_lost = self.is_lost or self.fault.is_lost
            return True
        return self.is_lost

    def cuda(self, name: str) -> None:
        """A call of the driver; needs a context."""
        if not self.contexts:
            self.violations.append(f"{name} without a context")
        if self.call(name):
            self.fail(name)

    def fail(self, name: str) -> None:
        text = "unspecified launch failure" if self.is_lost else self.fault_text
        kinds = {"unspecified launch failure": LaunchError, "out of memory": MemoryError}
        raise kinds.get(text, LogicError)(f"{name} failed: {text}")

    @property
    def fault_text(self) -> str:
        return self.fault.text if self.fault is not None else "out of memory"

    # what is alive

    def made(self, kind: str) -> None:
        self.live[kind] += 1

    def gone(self, kind: str) -> None:
        self.live[kind] -= 1
        self.released.append(kind)
        if self.live[kind] < 0:
            self.violations.append(f"{kind} released twice")
        if not self.retained and kind != "cuda context":
            self.violations.append(f"{kind} released after the CUDA context")
        if self.fails_on_release == kind:
            raise LogicError(f"releasing {kind} failed: invalid argument")

    def assert_clean(self, *, in_order: bool = True) -> None:
        """Nothing is left, and it went in order: graphs first, the CUDA context last."""
        left = {kind: count for kind, count in self.live.items() if count}
        assert self.violations == [], self.violations
        assert left == {}, left
        assert self.retained == 0 and self.contexts == []
        if in_order:
            closing = self.released[self.released_before_closing :]
            ranks = [_ORDER.index(kind) for kind in closing if kind in _ORDER]
            assert ranks == sorted(ranks), self.released

    # work

    def queue(self, stream: Stream, op: Op) -> None:
        stream.ops.append(op)
        if self.mood == "eager":
            while self.step():
                pass
        elif self.mood in ("random", "priority"):
            for _ in range(self.random.randrange(3)):
                self.step()

    def step(self) -> bool:
        """Do one piece of work; whether there was one that could be done."""
        ready = [stream for stream in self.streams.values() if stream.is_ready()]
        if not ready:
            return False
        if self.mood == "priority":
            chosen = min(ready, key=lambda stream: self.ranks[stream.handle])
        else:
            chosen = self.random.choice(ready)
        op = chosen.ops.popleft()
        self.done.append(op.name)
        op.work()
        self.now_ms += self.takes_ms.get(op.name, 0.0)
        return True

    def run_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if not self.step():
                self.violations.append("deadlock")
                return

    # memory

    def allocate(self, n_bytes: int) -> int:
        self.cuda("cuMemAlloc")
        if n_bytes <= 0 or n_bytes > self.free_bytes:
            raise MemoryError("cuMemAlloc failed: out of memory")
        address = self.next_address
        self.next_address += (n_bytes + 511) // 256 * 256
        self.memory[address] = np.full(n_bytes, 0xA5, np.uint8)
        return address

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - sum(len(content) for content in self.memory.values())

    def at(self, address: int, n_bytes: int) -> np.ndarray:
        """Bytes of the device; garbage and a violation where there are none."""
        found = self.memory.get(address)
        if found is None or len(found) < n_bytes:
            self.violations.append(f"{n_bytes} bytes at {address} are not allocated")
            return np.full(n_bytes, 0xEE, np.uint8)
        return found[:n_bytes]


class Handle:
    """What pycuda gives out: destroyed when Python drops it.

    Its methods are the core's, so that a traceback through one does not keep it alive, as one
    through C++ does not.
    """

    def __init__(self, core: Any) -> None:
        self.core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def __del__(self) -> None:
        self.core.destroy()


class Stream:
    def __init__(self, world: World, flags: int) -> None:
        world.cuda("cuStreamCreate")
        assert flags == 1, "a stream that waits for the default stream"
        self._world = world
        self.handle = len(world.ranks) + 7
        self.ops: collections.deque[Op] = collections.deque()
        self.capture: list[Op] | None = None
        self.is_capture_broken = False
        world.ranks[self.handle] = world.random.random()
        world.streams[self.handle] = self
        world.made("stream")

    def is_ready(self) -> bool:
        return bool(self.ops) and self.ops[0].is_ready()

    def put(self, op: Op) -> None:
        if self.capture is not None:
            self.capture.append(op)
        else:
            self._world.queue(self, op)

    def wait_for_event(self, event: Any) -> None:
        mark = event.mark
        del event
        self._world.cuda("cuStreamWaitEvent")
        if mark is not None:
            self.put(Op("wait", lambda: None, lambda: mark[0]))

    def synchronize(self) -> None:
        self._world.cuda("cuStreamSynchronize")
        if self.capture is not None:
            self.is_capture_broken = True
            raise LogicError("cuStreamSynchronize failed: operation not permitted in capture")
        self._world.run_until(lambda: not self.ops)

    def destroy(self) -> None:
        if self.ops and not self._world.is_lost:
            self._world.violations.append("a stream was destroyed with work in it")
        self.ops.clear()
        del self._world.streams[self.handle]
        self._world.gone("stream")


class Event:
    def __init__(self, world: World, flags: int) -> None:
        world.cuda("cuEventCreate")
        assert flags in (0, 2)
        self._world = world
        self.is_timed = flags == 0
        self.mark: list[bool] | None = None
        self.reached_ms: float | None = None
        world.made("event")

    def record(self, stream: Any) -> None:
        queue = stream.core
        del stream
        self._world.cuda("cuEventRecord")
        mark = [False]
        self.mark, self.reached_ms = mark, None

        def reach() -> None:
            mark[0], self.reached_ms = True, self._world.now_ms

        queue.put(Op("timed mark" if self.is_timed else "mark", reach))

    def time_since(self, earlier: Any) -> float:
        """Milliseconds; the fake's clock stands still but for what each kind of work takes."""
        begin = earlier.core
        del earlier
        self._world.cuda("cuEventElapsedTime")
        if not (self.is_timed and begin.is_timed):
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        if self.reached_ms is None or begin.reached_ms is None:
            self._world.violations.append("the time of a mark that was not reached")
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return self.reached_ms - begin.reached_ms

    def synchronize(self) -> None:
        self._world.cuda("cuEventSynchronize")
        mark = self.mark
        if mark is not None:
            self._world.run_until(lambda: mark[0])

    def destroy(self) -> None:
        self._world.gone("event")


class DeviceAllocation:
    def __init__(self, world: World, n_bytes: int) -> None:
        self._world = world
        self.address = world.allocate(n_bytes)
        world.made("memory")

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        del self._world.memory[self.address]
        self._world.gone("memory")


class HostAllocation:
    """Pinned memory; its content is garbage once it is freed."""

    def __init__(self, world: World, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        world.cuda("cuMemHostAlloc")
        self._world = world
        self._storage = np.full(shape, 1, dtype)
        self.__array_interface__ = {
            "shape": self._storage.shape,
            "typestr": self._storage.dtype.str,
            "data": (self._storage.ctypes.data, False),
            "version": 3,
        }
        world.made("pinned")

    def free(self) -> None:
        self._storage.fill(77)
        self._world.gone("pinned")


class Context:
    def __init__(self, world: World) -> None:
        self._world = world
        world.retained += 1
        world.made("cuda context")

    def push(self) -> None:
        if self._world.call("cuCtxPushCurrent") and not self._world.is_lost:
            self._world.fail("cuCtxPushCurrent")
        self._world.contexts.append(self)

    def detach(self) -> None:
        self._world.contexts = [other for other in self._world.contexts if other is not self]
        self._world.retained -= 1
        self._world.gone("cuda context")


def make_driver(world: World, n_gpus: int = 1) -> types.ModuleType:
    """A module in place of ``pycuda.driver``."""

    class Device:
        def __init__(self, index: int) -> None:
            assert 0 <= index < n_gpus

        @staticmethod
        def count() -> int:
            return n_gpus

        def name(self) -> str:
            return "Orin"

        def compute_capability(self) -> tuple[int, int]:
            return (8, 7)

        def total_memory(self) -> int:
            return world.total_bytes

        def retain_primary_context(self) -> Context:
            if world.call("cuDevicePrimaryCtxRetain"):
                world.fail("cuDevicePrimaryCtxRetain")
            return Context(world)

    class CurrentContext:
        @staticmethod
        def pop() -> None:
            if not world.contexts:
                raise LogicError("context::pop failed: invalid device context")
            world.contexts.pop()

        @staticmethod
        def get_current() -> Context | None:
            return world.contexts[-1] if world.contexts else None

    def init() -> None:
        if world.call("cuInit"):
            world.fail("cuInit")

    def upload(address: int, array: np.ndarray, stream: Any) -> None:
        queue = stream.core
        del stream
        world.cuda("cuMemcpyHtoDAsync")
        assert array.flags.c_contiguous

        def work() -> None:
            content = np.frombuffer(array.tobytes(), np.uint8)
            world.at(address, len(content))[:] = content

        queue.put(Op("upload", work))

    def download(array: np.ndarray, address: int, stream: Any) -> None:
        queue = stream.core
        del stream
        world.cuda("cuMemcpyDtoHAsync")
        assert array.flags.c_contiguous and array.flags.writeable

        def work() -> None:
            array[...] = world.at(address, array.nbytes).view(array.dtype).reshape(array.shape)

        queue.put(Op("download", work))

    module: Any = types.ModuleType("pycuda.driver")
    module.Error, module.LogicError = Error, LogicError
    module.MemoryError, module.LaunchError = MemoryError, LaunchError
    module.init, module.Device, module.Context = init, Device, CurrentContext
    module.Stream = lambda flags=0: Handle(Stream(world, flags))
    module.Event = lambda flags=0: Handle(Event(world, flags))
    module.mem_alloc = lambda n_bytes: DeviceAllocation(world, n_bytes)
    module.pagelocked_empty = lambda shape, dtype: np.asarray(HostAllocation(world, shape, dtype))
    module.memcpy_htod_async, module.memcpy_dtoh_async = upload, download
    module.mem_get_info = lambda: (world.free_bytes, world.total_bytes)
    return module


class CaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class GraphExec:
    def __init__(self, ops: list[Op]) -> None:
        self.ops: list[Op] | None = ops


def make_bindings(world: World) -> types.ModuleType:
    """A module in place of ``cuda.bindings.driver``."""

    def failed(name: str) -> Result:
        if not world.contexts:
            world.violations.append(f"{name} without a context")
        if not world.call(name):
            return Result.CUDA_SUCCESS
        lost, broken = Result.CUDA_ERROR_LAUNCH_FAILED, Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        return lost if world.is_lost else broken

    def begin(stream: int, mode: CaptureMode) -> tuple[Result]:
        code = failed("cuStreamBeginCapture")
        if not code:
            world.streams[stream].capture, world.streams[stream].is_capture_broken = [], False
        return (code,)

    def end(stream: int) -> tuple[Result, Any]:
        found = world.streams[stream]
        ops, found.capture = found.capture, None
        code = failed("cuStreamEndCapture")
        if found.is_capture_broken:
            code = Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        if code:
            return (code, None)
        world.made("graph")
        return (code, ops)

    def instantiate(graph: list[Op], flags: int) -> tuple[Result, Any]:
        code = failed("cuGraphInstantiate")
        if code:
            return (code, None)
        world.made("graph")
        return (code, GraphExec(list(graph)))

    def launch(executable: GraphExec, stream: int) -> tuple[Result]:
        code = failed("cuGraphLaunch")
        if executable.ops is None:
            world.violations.append("a destroyed graph was launched")
        elif not code:
            world.streams[stream].put(Op("graph", lambda ops=list(executable.ops): _all(ops)))
        return (code,)

    def destroy(executable: GraphExec) -> tuple[Result]:
        executable.ops = None
        world.gone("graph")
        return (Result.CUDA_SUCCESS,)

    def destroy_graph(graph: list[Op]) -> tuple[Result]:
        world.gone("graph")
        return (Result.CUDA_SUCCESS,)

    module: Any = types.ModuleType("cuda.bindings.driver")
    module.CUstreamCaptureMode = CaptureMode
    module.cuStreamBeginCapture, module.cuStreamEndCapture = begin, end
    module.cuGraphInstantiate, module.cuGraphLaunch = instantiate, launch
    module.cuGraphExecDestroy, module.cuGraphDestroy = destroy, destroy_graph
    return module


def _all(ops: list[Op]) -> None:
    for op in ops:
        op.work()


def install(monkeypatch: pytest.MonkeyPatch, world: World, *, graphs: bool = True) -> None:
    """Put the fakes where they are imported from."""
    driver, bindings = make_driver(world), make_bindings(world)
    for name in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(__import__("sys").modules, name, types.ModuleType(name))
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "pycuda.driver", driver)
    monkeypatch.setitem(modules, "cuda.bindings.driver", bindings if graphs else None)  # type: ignore[arg-type]
