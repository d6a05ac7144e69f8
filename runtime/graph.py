"""A model without a memory bank: one graph, and one plan, for every product on the same backbone.

Its bank and the statistics of the class are inputs (``memory_bank``, ``bank_squares``,
``bank_statistics``, and ``bank_neighbors`` for the score that needs them); a ``.bank`` file, see
:mod:`patchline.runtime.bank`, holds one product's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchline.runtime.contract import (
    Backbone,
    BankPrecision,
    Manifest,
    ModelSize,
    OnnxFile,
    Precision,
    Preprocessing,
    load_manifest,
    parse_manifest,
)
from patchline.runtime.errors import ManifestError
from patchline.runtime.files import write_atomically

GRAPH_VERSION: Final = 1

MEMORY_BANK = "memory_bank"
"""float32 or float16 ``[R, D]`` by the bank's precision, R a multiple of :data:`GROUP_ROWS`; rows
that only fill up are 0."""
BANK_SQUARES = "bank_squares"
"""float32 ``[R]``, squared norms of the rows as stored; very large where a row only fills up."""
BANK_STATISTICS = "bank_statistics"
"""float32 ``[3]``: mean and standard deviation of held-out distances, duplicate distance."""
BANK_NEIGHBORS = "bank_neighbors"
"""int64 ``[R, b]``, each row's own nearest rows; an input of the ``patchcore`` score alone."""

ROW_NEIGHBORS = 9
"""b: columns of :data:`BANK_NEIGHBORS`."""

GROUP_ROWS = 32
"""The search takes the bank in groups of so many rows, and needs as many groups as it looks for."""

HALF_SPARES = 8
"""So many rows more than neighbours the search looks for in a bank in half precision."""

_REWEIGHTED = "patchcore"

_Positive = Annotated[int, Field(ge=1)]


class GraphManifest(BaseModel):
    """``resnet18-256.json``: what a graph without a bank computes, whatever the product."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["graph"] = "graph"
    graph_version: Literal[1] = GRAPH_VERSION
    score: str
    precision: Precision
    bank_precision: BankPrecision = "fp32"
    model_size: ModelSize
    preprocessing: Preprocessing
    backbone: Backbone
    dimension: _Positive
    neighbors: _Positive
    onnx: OnnxFile | None
    versions: dict[str, str]

    def to_json(self) -> str:
        """The manifest as indented JSON text."""
        return self.model_dump_json(indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write the manifest, whole or not at all.

        Raises:
            WriteError: ``path`` cannot be written.
        """
        write_atomically(path, self.to_json().encode())

    @property
    def least_rows(self) -> int:
        """Rows that a bank has at least, those that fill up included."""
        return least_bank_rows(self.neighbors, self.bank_precision)


def least_bank_rows(neighbors: int, precision: BankPrecision) -> int:
    """Rows that a bank has at least, those that fill up included: a group for each row that the
    search looks for."""
    return GROUP_ROWS * (neighbors + (HALF_SPARES if precision == "fp16" else 0))


def bank_inputs(score: str) -> tuple[str, ...]:
    """The graph's inputs after ``frames``, in order: what a bank for this score holds."""
    names = (MEMORY_BANK, BANK_SQUARES, BANK_STATISTICS)
    return (*names, BANK_NEIGHBORS) if score == _REWEIGHTED else names


def load_any_manifest(path: Path) -> Manifest | GraphManifest:
    """Read the manifest beside a model file: of a whole model, or of a graph without a bank.

    Raises:
        ManifestError: it is missing, damaged or of a newer version; the fields are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return load_manifest(path)  # says what is wrong
    return parse_any_manifest(text, str(path))


def parse_any_manifest(text: str, origin: str) -> Manifest | GraphManifest:
    """Check manifest JSON of either kind; ``origin`` names the file in messages.

    Raises:
        ManifestError: as for :func:`load_any_manifest`.
    """
    if not _is_graph(text):
        return parse_manifest(text, origin)
    try:
        return GraphManifest.model_validate_json(text)
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}" for item in error.errors()
        )
        raise ManifestError(
            f"{origin} is not a valid manifest: {fields}. If it is of a newer Patchline, upgrade "
            "patchline on this machine"
        ) from error


def graph_of(manifest: Manifest) -> GraphManifest:
    """What a graph must be to serve the bank of this manifest.

    Raises:
        ManifestError: the model has no memory bank.
    """
    bank = manifest.required_bank()
    return GraphManifest(
        score=manifest.score,
        precision=manifest.precision,
        bank_precision=bank.precision,
        model_size=manifest.model_size,
        preprocessing=manifest.preprocessing,
        backbone=manifest.backbone,
        dimension=bank.dimension,
        neighbors=bank.neighbors,
        onnx=None,
        versions=manifest.versions,
    )


def differing_fields(graph: GraphManifest, wanted: GraphManifest) -> list[str]:
    """In what two graphs compute differently, as ``score: noise-response, not patchcore``.

    Where the same weights came from, the versions and the file do not count.
    """
    return [
        f"{name}: {found}, not {other}"
        for name, found, other in zip(_COMPARED, _compared(graph), _compared(wanted), strict=True)
        if found != other
    ]


_COMPARED = (
    "score",
    "precision",
    "bank_precision",
    "model_size",
    "preprocessing",
    "backbone",
    "layers",
    "weights_sha256",
    "dimension",
    "neighbors",
)


def _compared(graph: GraphManifest) -> tuple[Any, ...]:
    return (
        graph.score,
        graph.precision,
        graph.bank_precision,
        f"{graph.model_size.height} x {graph.model_size.width}",
        graph.preprocessing.model_dump_json(),
        graph.backbone.name,
        " ".join(graph.backbone.layers),
        graph.backbone.weights_sha256,
        graph.dimension,
        graph.neighbors,
    )


def _is_graph(text: str) -> bool:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("kind") == "graph"
