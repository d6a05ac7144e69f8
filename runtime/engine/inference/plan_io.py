"""What goes into a plan and comes out of it, held against its manifest before the first run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.runtime import contract
from patchline.runtime.bank import Bank
from patchline.runtime.contract import Manifest
from patchline.runtime.errors import EngineError, ModelError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    MEMORY_BANK,
    GraphManifest,
)

Shape = tuple[int, ...]
"""-1 where a plan takes any size."""

_IN, _OUT = "INPUT", "OUTPUT"
DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT64": "int64"}
"""numpy's names for TensorRT's types."""
_BANK_DTYPES = {"fp32": "FLOAT", "fp16": "HALF"}


@dataclass(frozen=True)
class Tensor:
    """An input or output: ``INPUT`` or ``OUTPUT``, TensorRT's name of its type, its shape."""

    mode: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class PlanIO:
    """What a plan takes.

    Attributes:
        batch: fewest and most frames in one run.
        bank: shape of each tensor of an external bank that is an input, smallest and largest.
    """

    batch: tuple[int, int]
    bank: dict[str, tuple[Shape, Shape]]

    def check_bank(self, bank: Bank, plan: Path) -> None:
        """Refuse a bank that the plan was not built for.

        Raises:
            ModelError: a tensor is missing.
            EngineError: more or fewer rows than the plan takes.
        """
        for name, (least, most) in self.bank.items():
            if name not in bank.tensors:
                raise ModelError(f"{bank.path} holds no {name}, which {plan.name} takes")
            found = bank.tensors[name].shape
            if not _between(least, found, most):
                raise EngineError(_misfit(bank, plan, (least, most), name))


def read_io(trt: Any, engine: Any, manifest: Manifest | GraphManifest, plan: Path) -> PlanIO:
    """Read and check a plan's inputs and outputs.

    Args:
        trt: TensorRT's module.
        engine: of the plan.
        manifest: what it should be.
        plan: for the message.

    Raises:
        ModelError: it takes or gives something else than the manifest says (all of it is named).
    """
    found = _tensors(trt, engine)
    problems = _problems(found, _expected(manifest))
    if problems:
        raise ModelError(
            f"{plan} is not the plan of its manifest: {'; '.join(problems)}. Build it again from "
            "the exported model"
        )
    least, _, most = _profile(engine, contract.FRAMES)
    bank = [name for name in found if found[name].mode == _IN and name != contract.FRAMES]
    shapes = {name: _limits(engine, name, found[name].shape) for name in bank}
    return PlanIO((least[0], most[0]), shapes)


def output_shapes(manifest: Manifest | GraphManifest, batch: int) -> dict[str, Shape]:
    """Shapes of the outputs for a batch, in the contract's order."""
    size = manifest.model_size
    pixels = (batch, size.height, size.width)
    return {
        contract.IMAGE_SCORE: (batch,),
        contract.ANOMALY_MAP: pixels,
        contract.INFLUENCE_MAP: pixels,
    }


def _expected(manifest: Manifest | GraphManifest) -> dict[str, Tensor]:
    size = manifest.model_size
    expected = {contract.FRAMES: Tensor(_IN, "UINT8", (-1, size.height, size.width, 3))}
    if isinstance(manifest, GraphManifest):
        dtype = _BANK_DTYPES[manifest.bank_precision]
        expected[MEMORY_BANK] = Tensor(_IN, dtype, (-1, manifest.dimension))
        expected[BANK_SQUARES] = Tensor(_IN, "FLOAT", (-1,))
        expected[BANK_STATISTICS] = Tensor(_IN, "FLOAT", (3,))
        expected[BANK_NEIGHBORS] = Tensor(_IN, "INT64", (-1, -1))
    for name, shape in output_shapes(manifest, -1).items():
        expected[name] = Tensor(_OUT, "FLOAT", shape)
    return expected


def _tensors(trt: Any, engine: Any) -> dict[str, Tensor]:
    modes = {trt.TensorIOMode.INPUT: _IN, trt.TensorIOMode.OUTPUT: _OUT}
    dtypes = {getattr(trt.DataType, name): name for name in DTYPES}
    found = {}
    for at in range(engine.num_io_tensors):
        name = engine.get_tensor_name(at)
        dtype = engine.get_tensor_dtype(name)
        found[name] = Tensor(
            modes.get(engine.get_tensor_mode(name), "neither"),
            dtypes.get(dtype, str(dtype)),
            tuple(engine.get_tensor_shape(name)),
        )
    return found


def _problems(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    # What a score has no use for may be gone from the graph's inputs; the rows and frames never.
    needed = [
        name
        for name, tensor in expected.items()
        if tensor.mode == _OUT or name in (contract.FRAMES, MEMORY_BANK)
    ]
    problems = [f"{name} is missing" for name in needed if name not in found]
    for name, tensor in found.items():
        wanted = expected.get(name)
        if wanted is None:
            problems.append(f"nothing is known of {name}")
        elif (tensor.mode, tensor.dtype) != (wanted.mode, wanted.dtype) or not _is_like(
            tensor.shape, wanted
        ):
            problems.append(f"{name} is {_text(tensor)}, expected {_text(wanted)}")
    return problems


def _is_like(found: Shape, wanted: Tensor) -> bool:
    """Whether a shape can be the wanted one; of an output, sizes may not be known yet."""
    return len(found) == len(wanted.shape) and all(
        have == want or want == -1 or (have == -1 and wanted.mode == _OUT)
        for have, want in zip(found, wanted.shape, strict=True)
    )


def _profile(engine: Any, name: str) -> list[Shape]:
    return [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]


def _limits(engine: Any, name: str, shape: Shape) -> tuple[Shape, Shape]:
    if -1 not in shape:
        return shape, shape
    least, _, most = _profile(engine, name)
    return least, most


def _between(least: Shape, found: Shape, most: Shape) -> bool:
    return len(least) == len(found) and all(
        low <= have <= high for low, have, high in zip(least, found, most, strict=True)
    )


def _misfit(bank: Bank, plan: Path, limits: tuple[Shape, Shape], name: str) -> str:
    least, most = limits
    return (
        f"{bank.path} has {bank.rows} rows ({name} {list(bank.tensors[name].shape)}), and "
        f"{plan.name} takes {least[0]} to {most[0]} ({list(least)} to {list(most)}). Build it for "
        f"them: build-engine {plan.with_suffix('.onnx').name} --bank-rows "
        f"{min(least[0], bank.rows)}:{bank.rows}:{max(most[0], bank.rows)}"
    )


def _text(tensor: Tensor) -> str:
    return f"{tensor.mode.lower()} {DTYPES.get(tensor.dtype, tensor.dtype)} {list(tensor.shape)}"
