"""``bottle.bank``: one product's memory bank, statistics and threshold, for a graph without one.

A safetensors file (no pickle). Its tensors are the graph's inputs by name, ready to be handed over
by any host; its metadata holds the product's manifest and a digest of the tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from patchline.runtime.contract import Manifest, parse_manifest
from patchline.runtime.errors import ConfigurationError, ManifestError, ModelError
from patchline.runtime.files import write_atomically
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    GROUP_ROWS,
    MEMORY_BANK,
    ROW_NEIGHBORS,
    GraphManifest,
    bank_inputs,
    differing_fields,
    graph_of,
    least_bank_rows,
)
from patchline.runtime.same_bytes import with_sorted_metadata

BANK_SUFFIX = ".bank"

_MANIFEST, _DIGEST = "manifest", "tensors_sha256"
_DTYPES = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Bank:
    """What a ``.bank`` file holds.

    Attributes:
        manifest: of the product; ``onnx`` is ``None``, since the graph is every product's.
        tensors: the graph's inputs by name, see :mod:`patchline.runtime.graph`.
        path: the file it was read from, for messages.
    """

    manifest: Manifest
    tensors: Mapping[str, npt.NDArray[Any]]
    path: Path = field(default=Path("the bank"), compare=False)

    @property
    def rows(self) -> int:
        """Rows of the bank, those that fill up included."""
        return len(self.tensors[MEMORY_BANK])

    def with_manifest(self, manifest: Manifest) -> Bank:
        """The same bank under another manifest (a new threshold)."""
        return replace(self, manifest=manifest)


def save_bank(bank: Bank, path: Path) -> None:
    """Write a bank file, whole or not at all.

    Raises:
        WriteError: it cannot be written; an older file is untouched.
    """
    tensors = {name: np.ascontiguousarray(array) for name, array in bank.tensors.items()}
    metadata = {_MANIFEST: bank.manifest.to_json(), _DIGEST: _digest(tensors)}
    write_atomically(path, with_sorted_metadata(safetensors.numpy.save(tensors, metadata)))


def load_bank(path: Path) -> Bank:
    """Read and check a bank file.

    Raises:
        ModelError: the file is missing, damaged, altered or no bank file.
        ManifestError: its manifest is of a newer version or was edited.
    """
    tensors, metadata = _read(path)
    has_rows = MEMORY_BANK in tensors and tensors[MEMORY_BANK].ndim > 0
    if _MANIFEST not in metadata or not has_rows:
        raise ModelError(
            f"{path} is no Patchline bank: it holds no {MEMORY_BANK} or no manifest. "
            "export-model --bank external writes one"
        )
    if metadata.get(_DIGEST) != _digest(tensors):
        raise ModelError(f"{path} was altered or damaged: its digest is another. Copy it again")
    bank = Bank(parse_manifest(metadata[_MANIFEST], str(path)), tensors, path)
    problems = _problems(bank)
    if problems:
        raise ModelError(f"{path} is no valid bank: {'; '.join(problems)}. Export it again")
    return bank


def as_bank(given: Path | Bank) -> Bank:
    """A bank that was read before as it is, a file read now.

    Raises:
        ModelError: as :func:`load_bank`.
    """
    return given if isinstance(given, Bank) else load_bank(given)


def check_fits(bank: Bank, graph: GraphManifest, graph_path: Path) -> None:
    """Refuse a bank that was fitted for another graph.

    Raises:
        ManifestError: it was; every field that differs is named.
    """
    differences = differing_fields(graph_of(bank.manifest), graph)
    if differences:
        raise ManifestError(
            f"{bank.path} is not for {graph_path}. {'; '.join(differences)}. Give the graph that "
            "was exported with it, or export the class again"
        )


def check_given(graph: object, bank: Path | Bank | None, path: Path) -> None:
    """Refuse a graph without a bank, and a bank for a model that holds its own.

    Raises:
        ConfigurationError: either is so.
    """
    if isinstance(graph, GraphManifest) and bank is None:
        raise ConfigurationError(
            f"{path.name} holds no memory bank: give one product's with --bank NAME{BANK_SUFFIX}"
        )
    if not isinstance(graph, GraphManifest) and bank is not None:
        name = bank.path if isinstance(bank, Bank) else bank
        is_trained = isinstance(graph, Manifest) and graph.memory_bank is None
        own = "needs no memory bank" if is_trained else "holds its own memory bank"
        raise ConfigurationError(
            f"{path.name} {own}, so --bank {name} would not be used. Leave it out, or give a graph "
            "that was exported with --bank external"
        )


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path} does not exist. export-model --bank external writes it")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}. Copy it again") from error


def _problems(bank: Bank) -> list[str]:
    described, rows = bank.manifest.required_bank(), bank.rows
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        MEMORY_BANK: (_DTYPES[described.precision], (rows, described.dimension)),
        BANK_SQUARES: ("float32", (rows,)),
        BANK_STATISTICS: ("float32", (3,)),
        BANK_NEIGHBORS: ("int64", (rows, ROW_NEIGHBORS)),
    }
    names = bank_inputs(bank.manifest.score)
    if set(bank.tensors) != set(names):
        return [f"it holds {', '.join(sorted(bank.tensors))}, expected {', '.join(sorted(names))}"]
    problems = [
        f"{name} is {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}"
        for name, array in bank.tensors.items()
        for dtype, shape in [expected[name]]
        if (str(array.dtype), array.shape) != (dtype, shape)
    ]
    return problems or _value_problems(bank)


def _value_problems(bank: Bank) -> list[str]:
    described, rows, problems = bank.manifest.required_bank(), bank.rows, []
    least = max(described.rows, least_bank_rows(described.neighbors, described.precision))
    if rows % GROUP_ROWS or rows < least:
        problems.append(
            f"it has {rows} rows, expected a multiple of {GROUP_ROWS} and at least {least}"
        )
    if described.rows < described.neighbors:
        problems.append(f"{described.rows} rows are fewer than {described.neighbors} neighbours")
    if not all(np.isfinite(array).all() for array in bank.tensors.values()):
        problems.append("it holds NaN or infinite values")
    neighbors = bank.tensors.get(BANK_NEIGHBORS, np.zeros(1))
    if not ((neighbors >= 0) & (neighbors < described.rows)).all():
        problems.append(f"{BANK_NEIGHBORS} names rows that are not there")
    return problems


def _digest(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
