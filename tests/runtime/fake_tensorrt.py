"""A TensorRT on the fake GPU: its plans compute what the tiny model or the tiny graph computes."""

from __future__ import annotations

import enum
import hashlib
import json
import types
from pathlib import Path
from typing import Any

import numpy as np

from patchline.runtime import contract
from patchline.runtime.contract import manifest_path
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.plans.record import BuildOptions, Device, PlanRecord, record_path
from patchline.runtime.graph import BANK_SQUARES, BANK_STATISTICS, MEMORY_BANK, load_any_manifest

from .fake_cuda import Op, World
from .tiny_model import SIZE

ORIN = Device(gpu="Orin", compute_capability="8.7")
SCRATCH_BYTES = 4096

Tensors = dict[str, dict[str, Any]]


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    UINT8 = 2
    INT64 = 3


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Strategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class Severity(enum.Enum):
    ERROR = 1


def tensors(batch: tuple[int, int, int], rows: tuple[int, int, int] | None = None) -> Tensors:
    """The inputs and outputs of the tiny model, or of the tiny graph."""
    frame, pixels = [SIZE, SIZE, 3], [-1, SIZE, SIZE]
    found: Tensors = {
        contract.FRAMES: _tensor("INPUT", "UINT8", [-1, *frame], [[n, *frame] for n in batch])
    }
    if rows is not None:
        found[MEMORY_BANK] = _tensor("INPUT", "FLOAT", [-1, 1], [[n, 1] for n in rows])
        found[BANK_SQUARES] = _tensor("INPUT", "FLOAT", [-1], [[n] for n in rows])
        found[BANK_STATISTICS] = _tensor("INPUT", "FLOAT", [3], [])
    found[contract.IMAGE_SCORE] = _tensor("OUTPUT", "FLOAT", [-1], [])
    found[contract.ANOMALY_MAP] = _tensor("OUTPUT", "FLOAT", pixels, [])
    found[contract.INFLUENCE_MAP] = _tensor("OUTPUT", "FLOAT", pixels, [])
    return found


def _tensor(mode: str, dtype: str, shape: list[int], profile: list[list[int]]) -> dict[str, Any]:
    return {"mode": mode, "dtype": dtype, "shape": shape, "profile": profile}


def write_plan(
    model: Path,
    batch: tuple[int, int, int] = (1, 1, 4),
    rows: tuple[int, int, int] | None = None,
    changed: Tensors | None = None,
) -> Path:
    """Write a plan and its record beside a model; ``changed`` replaces inputs and outputs."""
    plan = model.with_suffix(".trt")
    plan.write_text(json.dumps(tensors(batch, rows) if changed is None else changed))
    manifest = load_any_manifest(manifest_path(model))
    assert manifest.onnx is not None
    record = PlanRecord(
        onnx_sha256=manifest.onnx.sha256,
        plan_sha256=hashlib.sha256(plan.read_bytes()).hexdigest(),
        flavour="tensorrt",
        version="10.3.0",
        device=ORIN,
        options=BuildOptions(batch=batch, bank_rows=rows),
    )
    record_path(plan).write_text(record.to_json())
    return plan


class ILogger:
    def __init__(self) -> None:
        pass


class Engine:
    def __init__(self, world: World, log: Any, spec: Tensors) -> None:
        self._world, self._log, self.spec = world, log, spec
        self.device_memory_size_v2 = SCRATCH_BYTES
        world.made("engine")

    @property
    def num_io_tensors(self) -> int:
        return len(self.spec)

    def get_tensor_name(self, at: int) -> str:
        return list(self.spec)[at]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.spec[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.spec[name]["dtype"]]

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.spec[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert profile == 0 and self.spec[name]["profile"], f"{name} has no profile"
        return [list(shape) for shape in self.spec[name]["profile"]]

    def create_execution_context(self, strategy: Strategy) -> ExecutionContext | None:
        assert strategy is Strategy.USER_MANAGED
        if self._world.call("create_execution_context"):
            self._log.log(Severity.ERROR, _reason(self._world, "Cannot create a context"))
            return None
        return ExecutionContext(self._world, self._log, self.spec)

    def __del__(self) -> None:
        self._world.gone("engine")


class ExecutionContext:
    def __init__(self, world: World, log: Any, spec: Tensors) -> None:
        self._world, self._log, self._spec = world, log, spec
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._settled: Any = None
        world.made("context")

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= SCRATCH_BYTES
        self._scratch = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor = self._spec[name]
        least, most = (
            (tensor["profile"][0], tensor["profile"][2])
            if tensor["profile"]
            else (tensor["shape"], tensor["shape"])
        )
        fits = len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        if self._world.call("set_input_shape") or not fits:
            self._log.log(Severity.ERROR, _reason(self._world, f"{name} {shape} does not fit"))
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._world.call("set_tensor_address"):
            self._log.log(Severity.ERROR, _reason(self._world, "Bad address"))
            return False
        assert name in self._spec
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        batch = self._shapes[contract.FRAMES][0]
        return [
            batch if at == 0 and n == -1 else n for at, n in enumerate(self._spec[name]["shape"])
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = self._world.streams[stream_handle]
        if not self._world.contexts:
            self._world.violations.append("execute_async_v3 without a context")
        if self._world.live["engine"] < 1:
            self._world.violations.append("a context ran without its engine")
        if self._world.call("execute_async_v3"):
            self._log.log(Severity.ERROR, _reason(self._world, "Enqueue failed"))
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        assert set(addresses) == set(self._spec), "an address was not set"
        if stream.capture is not None and self._settled != shapes:
            stream.is_capture_broken = True  # as TensorRT, which settles shapes in a plain run
        self._settled = shapes
        scratch = self._scratch
        stream.put(Op("compute", lambda: self._compute_at(shapes, addresses, scratch)))
        return True

    def _compute_at(
        self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: Any
    ) -> None:
        world = self._world
        world.at(*scratch)

        def read(name: str, dtype: Any) -> np.ndarray:
            shape = shapes[name]
            n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return world.at(addresses[name], n_bytes).view(dtype).reshape(shape)

        anomaly_map = read(contract.FRAMES, np.uint8).mean(axis=3, dtype=np.float32)
        if MEMORY_BANK in shapes:
            value, root = read(MEMORY_BANK, np.float32).max(), read(BANK_SQUARES, np.float32).min()
            statistic = read(BANK_STATISTICS, np.float32).min()
            anomaly_map -= np.float32((value + np.sqrt(root)) / 2 + statistic)
        for name, values in (
            (contract.IMAGE_SCORE, anomaly_map.max(axis=(1, 2))),
            (contract.ANOMALY_MAP, anomaly_map),
            (contract.INFLUENCE_MAP, anomaly_map / 2),
        ):
            world.at(addresses[name], values.nbytes).view(np.float32)[:] = values.ravel()

    def __del__(self) -> None:
        self._world.gone("context")


def _reason(world: World, text: str) -> str:
    return "Cuda Runtime (an illegal memory access was encountered)" if world.is_lost else text


def make_flavour(world: World) -> Flavour:
    """TensorRT 10.3.0 on the fake GPU."""

    class Runtime:
        def __init__(self, log: Any) -> None:
            self._log = log
            world.made("runtime")

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            if world.call("deserialize_cuda_engine"):
                self._log.log(Severity.ERROR, _reason(world, "Serialization: magic tag is wrong"))
                return None
            return Engine(world, self._log, json.loads(content))

        def __del__(self) -> None:
            world.gone("runtime")

    module: Any = types.SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        ExecutionContextAllocationStrategy=Strategy,
    )
    return Flavour("tensorrt", module, "10.3.0")
