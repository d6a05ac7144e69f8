"""What travels to the GPU: models, each in a folder of its own, and what they gave before.

::

    DIR/embedded/gasket.onnx  gasket.json                    the bank in the model
        external/NAME.onnx    NAME.json     gasket.bank      the bank beside it
        other/gasket-half.bank                               a second product for the same graph
        backbone/backbone.onnx  backbone.json                no head: for its share of the time
        frames.npz                                           uint8 [N, H, W, 3]
        embedded.npz  external.npz  other.npz  backbone.npz  ONNX Runtime's outputs for them
        packed.json                                          how all this was made
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchline.runtime import contract
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import DataError
from patchline.runtime.preprocess import Frame

EMBEDDED, EXTERNAL, BACKBONE = "embedded", "external", "backbone"
CASES = (EMBEDDED, EXTERNAL, BACKBONE)
OTHER = "other"
_ALLOWED = "allowed_"

FRAMES_FILE, RECORD_FILE = "frames.npz", "packed.json"


@dataclass(frozen=True)
class Case:
    """One carried model.

    Attributes:
        name: one of :data:`CASES`.
        model: its ONNX file.
        bank: its bank file, where the model holds none.
        expected: what ONNX Runtime gave for the carried frames.
        allowed: by how much each value may differ because neighbours are equally far but for
            rounding, see :mod:`patchline.export.ties`.
    """

    name: str
    model: Path
    bank: Path | None
    expected: Prediction
    allowed: Prediction


@dataclass(frozen=True)
class Carried:
    """All that was carried.

    Attributes:
        cases: the models by name.
        other: the external case with the second product's bank.
        frames: uint8 ``[N, H, W, 3]``.
        record: how it was made.
    """

    cases: dict[str, Case]
    other: Case
    frames: Frame
    record: dict[str, Any]


def load_carried(folder: Path) -> Carried:
    """Read a folder that ``pack`` has written.

    Raises:
        DataError: it is none, or incomplete.
    """
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        frames = load_arrays(folder / FRAMES_FILE)[contract.FRAMES]
        cases = {name: _case(folder, name) for name in CASES}
        other = _other(folder, cases[EXTERNAL].model)
        return Carried(cases, other, frames, record)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{folder} is not complete ({error}). Write it again on a workstation: python -m "
            f"patchline.benchmarks.gpu_check pack --out {folder.name}"
        ) from error


def save_outputs(path: Path, expected: Prediction, allowed: Prediction) -> None:
    """Write outputs and what may differ as arrays by the contract's names."""
    arrays = {name: getattr(expected, name) for name in contract.OUTPUTS}
    arrays |= {f"{_ALLOWED}{name}": getattr(allowed, name) for name in contract.OUTPUTS}
    np.savez_compressed(path, **arrays)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an ``.npz`` file; pickled ones are refused."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def model_in(folder: Path) -> tuple[Path, Path | None]:
    """The one model in a folder, and the bank beside it.

    Raises:
        ValueError: there is not one model, or more than one bank.
    """
    (model,) = sorted(folder.glob("*.onnx"))
    banks = sorted(folder.glob(f"*{BANK_SUFFIX}"))
    if len(banks) > 1:
        raise ValueError(f"{folder.name} holds {len(banks)} banks")
    return model, banks[0] if banks else None


def in_folder(carried: Carried, folder: Path) -> Carried:
    """The same with its models' files copied below another folder, where plans may lie."""
    for case in carried.cases.values():
        shutil.copytree(case.model.parent, folder / case.name)
    cases = {name: _moved(case, folder) for name, case in carried.cases.items()}
    other = replace(carried.other, model=cases[EXTERNAL].model)
    return replace(carried, cases=cases, other=other)


def _moved(case: Case, folder: Path) -> Case:
    model, bank = model_in(folder / case.name)
    return replace(case, model=model, bank=bank)


def _case(folder: Path, name: str) -> Case:
    model, bank = model_in(folder / name)
    return Case(name, model, bank, *_outputs(folder, name))


def _other(folder: Path, model: Path) -> Case:
    (bank,) = (folder / OTHER).glob(f"*{BANK_SUFFIX}")
    return Case(OTHER, model, bank, *_outputs(folder, OTHER))


def _outputs(folder: Path, name: str) -> tuple[Prediction, Prediction]:
    arrays = load_arrays(folder / f"{name}.npz")
    expected = Prediction(*(arrays[output] for output in contract.OUTPUTS))
    return expected, Prediction(*(arrays[f"{_ALLOWED}{output}"] for output in contract.OUTPUTS))
