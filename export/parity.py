"""An export is not done until the file computes what was fitted: names, axes, shapes, values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchline.export.detector import Detector, Outputs
from patchline.export.onnx_session import session_options
from patchline.export.ties import TieAllowance, tie_allowance
from patchline.runtime import contract
from patchline.runtime.contract import ModelSize, Parity
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.errors import ModelError, ParityError
from patchline.runtime.graph import BANK_STATISTICS
from patchline.runtime.preprocess import Frame

FRAMES_COMPARED = 8
_ROUNDING_SHARE = 0.01
"""Scores below this share of a bank row's mean norm are compared as if they were that large.

Frames whose patches all lie in the bank score nothing but rounding, which no two runtimes share.
"""
_KINDS = {"float32": "tensor(float)", "float16": "tensor(float16)", "int64": "tensor(int64)"}


@dataclass(frozen=True)
class Tolerances:
    """Largest differences accepted, float32 against float32.

    The first two are relative to the largest value, the influence map lies in 0 to 1.
    """

    image_score: float = 1e-3
    anomaly_map: float = 1e-3
    influence_map: float = 1e-2
    batch: float = 1e-3


@dataclass(frozen=True)
class Expected:
    """What an exported file has to compute.

    Attributes:
        size: height and width of its frames in pixels.
        predict: the fitted module, on the CPU.
        floor: scores below it are compared as if they were that large.
        ties: what patches with two right answers allow; nothing by default.
    """

    size: ModelSize
    predict: Callable[[Tensor], Outputs]
    floor: float
    ties: Callable[[Frame], TieAllowance] | None = None

    def ties_of(self, frames: Frame) -> TieAllowance:
        """What ties allow for frames uint8 ``[B, H, W, 3]``."""
        if self.ties is not None:
            return self.ties(frames)
        none = np.zeros((len(frames), 1, 1), np.float32)
        return TieAllowance(0, (none[:, 0, 0], none, none))


Value = npt.NDArray[np.float32]
Values = tuple[Value, ...]
Tensors = Mapping[str, npt.NDArray[Any]]


def verify_parity(
    path: Path,
    detector: Detector,
    frames: Frame,
    tolerances: Tolerances | None = None,
    bank: Tensors | None = None,
) -> Parity:
    """:func:`verify_against` a detector with a memory bank, allowing for ties of its neighbours.

    ``detector`` is the fitted module, on the CPU; all else is as there.
    """
    expected = Expected(
        size=detector.embedder.size,
        predict=detector.predict,
        floor=_ROUNDING_SHARE * detector.head.mean_norm,
        ties=functools.partial(tie_allowance, detector),
    )
    return verify_against(path, expected, frames, tolerances, bank)


def verify_against(
    path: Path,
    module: Expected,
    frames: Frame,
    tolerances: Tolerances | None = None,
    bank: Tensors | None = None,
) -> Parity:
    """Open an exported file in ONNX Runtime and compare it with the module it came from.

    Args:
        path: the ONNX file.
        module: what it has to compute.
        frames: real frames, uint8 ``[B, H, W, 3]``.
        tolerances: the largest differences accepted.
        bank: the inputs after ``frames``, of a graph without a bank.

    Returns:
        The largest differences found, where patches have one right answer.

    Raises:
        ParityError: every difference in names, axes, shapes and values, listed together.
        ModelError: ONNX Runtime cannot open or run the file.
    """
    session, given = _open(path), dict(bank or {})
    size = module.size
    problems = _signature_problems(session, size, given)
    if frames.shape[1:3] != (size.height, size.width):
        problems.append(f"the frames are {list(frames.shape)}, the fitted module takes {size}")
        raise ParityError(_message(path, problems))
    expected = tuple(output.numpy() for output in module.predict(torch.from_numpy(frames)))
    try:
        found = _run(session, frames, given)
        single = [_run(session, frames[i : i + 1], given) for i in range(len(frames))]
    except ModelError as error:
        raise ParityError(_message(path, [*problems, str(error)])) from error
    singles = tuple(np.concatenate(parts) for parts in zip(*single, strict=True))
    problems += _shape_problems(expected, found) + _shape_problems(expected, singles)
    if any(a.shape != b.shape for a, b in zip(expected * 2, found + singles, strict=True)):
        raise ParityError(_message(path, problems))
    ties = module.ties_of(frames)
    differences = _differences(expected, found, singles, ties, module.floor)
    problems += _value_problems(differences, tolerances or Tolerances())
    if problems:
        raise ParityError(_message(path, problems))
    return Parity(frames=len(frames), tied_patches=ties.patches, **differences)


def verify_form(
    path: Path, size: ModelSize, frames: Frame, batch: float, bank: Tensors | None = None
) -> float:
    """Verify what does not need the fitted module: names, axes, shapes, and batches.

    Args:
        path: the ONNX file.
        size: height and width of its frames in pixels.
        frames: real frames, uint8 ``[B, H, W, 3]``.
        batch: the largest difference accepted between a batch and its frames one by one, relative
            to the largest value.
        bank: the inputs after ``frames``, of a graph without a bank.

    Returns:
        The largest such difference of image score and anomaly map.

    Raises:
        ParityError: every problem, listed together.
        ModelError: ONNX Runtime cannot open the file.
    """
    session, given = _open(path), dict(bank or {})
    problems = _signature_problems(session, size, given)
    try:
        found = _run(session, frames, given)
        single = [_run(session, frames[i : i + 1], given) for i in range(len(frames))]
    except ModelError as error:
        raise ParityError(_message(path, [*problems, str(error)])) from error
    singles = tuple(np.concatenate(parts) for parts in zip(*single, strict=True))
    maps = np.zeros((len(frames), size.height, size.width), np.float32)
    expected = maps[:, 0, 0], maps, maps
    wrong = _shape_problems(expected, found) + _shape_problems(expected, singles)
    if wrong:
        raise ParityError(_message(path, problems + wrong))
    none = np.float32(0)
    difference = max(_relative(found[i], singles[i], 0.0, np.asarray(none)) for i in (0, 1))
    if not difference <= batch:
        problems.append(
            f"batch against single frames, relative: differs by {difference:.2g}, at most "
            f"{batch:.2g} is accepted"
        )
    if problems:
        raise ParityError(_message(path, problems))
    return difference


def _differences(
    expected: Values, found: Values, singles: Values, ties: TieAllowance, floor: float
) -> dict[str, float]:
    """The largest differences, less what ties between neighbours allow."""
    score, heat, influence = ties.outputs
    batch = (_relative(found[i], singles[i], floor, ties.outputs[i]) for i in (0, 1))
    return {
        "image_score_max_relative_error": _relative(expected[0], found[0], floor, score),
        "anomaly_map_max_relative_error": _relative(expected[1], found[1], floor, heat),
        "influence_map_max_error": _largest(expected[2], found[2], influence),
        "batch_max_relative_error": max(batch),
    }


def _open(path: Path) -> Any:
    onnxruntime = import_onnxruntime()
    options = session_options(onnxruntime)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"ONNX Runtime cannot open the exported {path.name}: {error}") from error


def _run(session: Any, frames: Frame, bank: Tensors) -> Values:
    try:
        return tuple(session.run(list(contract.OUTPUTS), {contract.FRAMES: frames, **bank}))
    except Exception as error:  # as above
        raise ModelError(f"ONNX Runtime cannot run the exported file: {error}") from error


def _signature_problems(session: Any, size: ModelSize, bank: Tensors) -> list[str]:
    pixels = [size.height, size.width]
    expected: dict[str, tuple[str, list[int | None]]] = {
        contract.FRAMES: ("tensor(uint8)", [None, *pixels, 3]),
        **{name: _bank_signature(name, array) for name, array in bank.items()},
        contract.IMAGE_SCORE: ("tensor(float)", [None]),
        contract.ANOMALY_MAP: ("tensor(float)", [None, *pixels]),
        contract.INFLUENCE_MAP: ("tensor(float)", [None, *pixels]),
    }
    items = [*session.get_inputs(), *session.get_outputs()]
    names = [item.name for item in items]
    problems = []
    if names != list(expected):
        problems.append(f"inputs and outputs are {names}, expected {list(expected)}")
    for item in items:
        found = item.type, [_fixed(axis) for axis in item.shape]
        wanted = expected.get(item.name, found)
        if found != wanted:
            problems.append(f"{item.name} is {found}, expected {wanted} (None: the dynamic batch)")
    return problems


def _bank_signature(name: str, array: npt.NDArray[Any]) -> tuple[str, list[int | None]]:
    """Type and axes of a bank's input: its rows are dynamic, everything else is fixed."""
    kind = _KINDS[array.dtype.name]
    rows = [] if name == BANK_STATISTICS else [None]
    return kind, [*rows, *array.shape[len(rows) :]]


def _fixed(axis: object) -> int | None:
    return axis if isinstance(axis, int) else None


def _shape_problems(expected: Values, found: Values) -> list[str]:
    return [
        f"{name} has shape {list(b.shape)} and {b.dtype}, expected {list(a.shape)} and {a.dtype}"
        for name, a, b in zip(contract.OUTPUTS, expected, found, strict=True)
        if a.shape != b.shape or a.dtype != b.dtype
    ]


def _value_problems(differences: dict[str, float], tolerances: Tolerances) -> list[str]:
    # Written so that NaN, which is neither smaller nor larger, is a problem.
    return [
        f"{what}: differs by {differences[name]:.2g}, at most {allowed:.2g} is accepted"
        for name, what, allowed in (
            ("image_score_max_relative_error", "image_score, relative", tolerances.image_score),
            ("anomaly_map_max_relative_error", "anomaly_map, relative", tolerances.anomaly_map),
            ("influence_map_max_error", "influence_map", tolerances.influence_map),
            (
                "batch_max_relative_error",
                "batch against single frames, relative",
                tolerances.batch,
            ),
        )
        if not differences[name] <= allowed
    ]


def _relative(expected: Value, found: Value, floor: float, allowed: Value) -> float:
    difference = _largest(expected, found, allowed)
    scale = max(float(np.abs(expected).max()), floor)
    return difference / scale if scale > 0 else difference


def _largest(expected: Value, found: Value, allowed: Value) -> float:
    """The largest difference past what is allowed; NaN stays NaN."""
    excess = np.abs(expected - found) - allowed
    return float(np.where(excess < 0, 0, excess).max())


def _message(path: Path, problems: list[str]) -> str:
    return f"{path.name} does not compute what was fitted. {'; '.join(problems)}"
