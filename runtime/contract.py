"""What an exported model promises: tensor names and shapes, and the manifest (DESIGN section 2).

The manifest is the JSON file beside the model. It holds what a host needs to judge a frame
(size, threshold) and what a person needs to trust it (data, weights, parity, digests).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from patchline.runtime.errors import ManifestError
from patchline.runtime.files import sha256_of_file, write_atomically
from patchline.runtime.manifest.bank import (
    BankPrecision,
    DistanceStatistics,
    FoundNeighbors,
    MemoryBank,
    PrunedSearch,
    ShardedCoreset,
)
from patchline.runtime.manifest.conversion import Conversion, Gate, GateLimits, Quantization
from patchline.runtime.manifest.distillation import Distillation, FeatureNoise
from patchline.runtime.manifest.model import (
    Backbone,
    ModelSize,
    OnnxFile,
    Parity,
    PictureSet,
    Precision,
    Preprocessing,
    TrainingSet,
)
from patchline.runtime.manifest.section import Section
from patchline.runtime.manifest.threshold import LabelledThreshold, NormalScores, Tail, Threshold

__all__ = [
    "ANOMALY_MAP",
    "FRAMES",
    "IMAGE_SCORE",
    "INFLUENCE_MAP",
    "METADATA_KEY",
    "OUTPUTS",
    "SCHEMA_VERSION",
    "Backbone",
    "BankPrecision",
    "Conversion",
    "DistanceStatistics",
    "Distillation",
    "FeatureNoise",
    "FoundNeighbors",
    "Gate",
    "GateLimits",
    "LabelledThreshold",
    "Manifest",
    "MemoryBank",
    "ModelSize",
    "NormalScores",
    "OnnxFile",
    "Parity",
    "PictureSet",
    "Precision",
    "Preprocessing",
    "PrunedSearch",
    "Quantization",
    "ShardedCoreset",
    "Tail",
    "Threshold",
    "TrainingSet",
    "differing_fields",
    "external_data_path",
    "load_manifest",
    "manifest_path",
    "model_digest",
    "parse_manifest",
]

SCHEMA_VERSION: Final = 1
"""The manifest version this Patchline writes, and the newest it reads."""

METADATA_KEY = "patchline.manifest"
"""Key of the manifest's copy in the ONNX file's ``metadata_props``."""

FRAMES = "frames"
IMAGE_SCORE = "image_score"
ANOMALY_MAP = "anomaly_map"
INFLUENCE_MAP = "influence_map"
OUTPUTS = (IMAGE_SCORE, ANOMALY_MAP, INFLUENCE_MAP)
"""Output names in graph order."""


class Manifest(Section):
    """What is known about one exported model. JSON round-trips exactly.

    A model has a memory bank with its distance statistics, or was trained (``distillation``).
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    class_name: str = Field(alias="class", min_length=1)
    method: str
    score: str
    precision: Precision
    model_size: ModelSize
    preprocessing: Preprocessing
    backbone: Backbone
    memory_bank: MemoryBank | None
    distance_statistics: DistanceStatistics | None
    threshold: Threshold
    normal_scores: NormalScores
    training_set: TrainingSet
    parity: Parity | None
    onnx: OnnxFile | None
    versions: dict[str, str]
    conversion: Conversion | None = None
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _is_of_one_method(self) -> Manifest:
        parts = {"memory_bank": self.memory_bank, "distance_statistics": self.distance_statistics}
        is_trained = self.distillation is not None
        expected = (
            "null beside distillation" if is_trained else "a section: there is no distillation"
        )
        wrong = [name for name, part in parts.items() if (part is not None) == is_trained]
        if wrong:
            raise ValueError("; ".join(f"{name}: expected {expected}" for name in wrong))
        return self

    def required_bank(self) -> MemoryBank:
        """The memory bank, where nothing can be done without one.

        Raises:
            ManifestError: the model has none.
        """
        if self.memory_bank is None:
            raise ManifestError(self._has_no_bank())
        return self.memory_bank

    def required_statistics(self) -> DistanceStatistics:
        """The distance statistics, where nothing can be done without them.

        Raises:
            ManifestError: the model has none.
        """
        if self.distance_statistics is None:
            raise ManifestError(self._has_no_bank())
        return self.distance_statistics

    def _has_no_bank(self) -> str:
        return (
            f"the model of {self.class_name} is of the method {self.method} and has no memory "
            "bank, which is needed here. Give a model of a method with one, such as "
            "patchcore-noising"
        )

    def to_json(self) -> str:
        """The manifest as indented JSON text."""
        document = self.model_dump(mode="json", by_alias=True)
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the manifest to ``path``, whole or not at all.

        Raises:
            WriteError: ``path`` cannot be written.
        """
        write_atomically(path, self.to_json().encode())


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model file lies: ``bottle.onnx`` -> ``bottle.json``."""
    return model.with_suffix(".json")


def external_data_path(model: Path) -> Path:
    """Where the tensors of a model past ONNX's 2 GiB lie: ``NAME.onnx`` -> ``NAME.onnx.data``."""
    return model.with_name(f"{model.name}.data")


def model_digest(model: Path) -> str:
    """SHA-256 of an ONNX file; where it has external data, of both files' digests."""
    digest, data = sha256_of_file(model), external_data_path(model)
    if not data.exists():
        return digest
    return hashlib.sha256(f"{digest} {sha256_of_file(data)}".encode()).hexdigest()


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestError: it is missing, is no JSON, is of a newer version, or a field is missing,
            unknown or ill-typed; the message names every such field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(
            f"{path} is missing. It is written beside the model by export-model and holds the "
            "threshold: copy it here together with the .onnx file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, origin: str) -> Manifest:
    """Check manifest JSON; ``origin`` names the file in messages.

    Raises:
        ManifestError: as for :func:`load_manifest`.
    """
    try:
        document: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{origin} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{origin} is not a manifest: expected a JSON object")
    _check_version(document.get("schema_version"), origin)
    try:
        # Strict mode reads JSON arrays as tuples only from JSON text, not from Python lists.
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ManifestError(f"{origin} is not a valid manifest: {_fields(error)}") from error


def _check_version(version: object, origin: str) -> None:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ManifestError(
            f"{origin}: schema_version is {version}, and this Patchline reads up to "
            f"{SCHEMA_VERSION}. Upgrade patchline on this machine"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ManifestError(
            f"{origin}: schema_version is {version!r}, expected {SCHEMA_VERSION}. "
            "The file is no Patchline manifest or was edited; export the model again"
        )


def _fields(error: ValidationError) -> str:
    return "; ".join(
        ".".join(str(part) for part in item["loc"]) + f": {item['msg'].lower()}"
        if item["loc"]
        else item["msg"].removeprefix("Value error, ")  # of the manifest as a whole
        for item in error.errors()
    )


_FREE_TO_CHANGE = frozenset({"threshold", "normal_scores", "onnx"})


def differing_fields(beside: Manifest, inside: Manifest) -> list[str]:
    """Fields in which a manifest contradicts the copy inside its model.

    The threshold and the figures behind it may be changed without touching the model, so they
    do not count.

    Returns:
        Sentences such as ``model_size: the manifest says …, the model says …``.
    """
    return [
        f"{name}: the manifest says {_short(getattr(beside, name))}, "
        f"the model says {_short(getattr(inside, name))}"
        for name in Manifest.model_fields
        if name not in _FREE_TO_CHANGE and getattr(beside, name) != getattr(inside, name)
    ]


def _short(value: object) -> str:
    return str(value if not isinstance(value, BaseModel) else value.model_dump_json())
