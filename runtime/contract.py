"""What an exported model promises: tensor names and shapes, and the manifest (DESIGN section 2).

The manifest is the JSON file beside the model. It holds what a host needs to judge a frame
(size, threshold) and what a person needs to trust it (data, weights, parity, digests).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchline.runtime.errors import ManifestError
from patchline.runtime.files import sha256_of_file, write_atomically

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

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True
    )


class ModelSize(_Section):
    """Height and width in pixels of the frames that a model takes."""

    height: _Positive
    width: _Positive


class Preprocessing(_Section):
    """How a camera frame becomes model input, and what the graph does to it first."""

    channel_order: Literal["BGR"]
    resize: str
    mean: tuple[_Finite, _Finite, _Finite]
    std: tuple[_Finite, _Finite, _Finite]


class Backbone(_Section):
    """The feature extractor; the digest is over its tensors, whatever file they came in."""

    name: str
    layers: tuple[str, ...]
    weights_source: str
    weights_sha256: _Digest


Precision = Literal["fp32", "fp16", "int8"]
"""Of the backbone. What of the rest is in half precision, the bank's own precision says."""
BankPrecision = Literal["fp32", "fp16"]


class FoundNeighbors(_Section):
    """What a pruned search found on good pictures, beside the exact one.

    No picture was judged by its own rows of the bank.

    Attributes:
        images: pictures compared.
        nearest: share of their patches whose nearest row was found.
        all: share whose k nearest rows were all found.
        image_score_change: largest, in parts of the threshold.
    """

    images: _Positive
    nearest: _Rate
    all: _Rate
    image_score_change: _Finite


class PrunedSearch(_Section):
    """A search that ranks the bank by an estimate first, and may miss a neighbour.

    Attributes:
        leading: principal coordinates that the estimate looks at.
        candidates: rows that are then ranked by the distance itself.
        found: what it finds; ``None`` where that was not measured.
    """

    leading: _Positive
    candidates: _Positive
    found: FoundNeighbors | None = None


class MemoryBank(_Section):
    """The coreset of good patches: ``rows`` times ``dimension``, and how it was chosen.

    ``precision`` is that of the stored rows and of the search; distances are float32 always.
    ``search`` is ``None`` where the search is exact. ``search_problems`` says, with figures, why a
    bank large enough for a pruned search is searched exactly; else it is empty.
    """

    rows: _Positive
    dimension: _Positive
    neighbors: _Positive
    coreset_ratio: _Rate
    seed: int
    precision: BankPrecision = "fp32"
    search: PrunedSearch | None = None
    search_problems: tuple[str, ...] = ()


class DistanceStatistics(_Section):
    """Mean and standard deviation of the k-mean distance of held-out normal patches."""

    mean: _Finite
    std: _Finite


class Tail(_Section):
    """Generalised Pareto fit of the largest normal scores (peaks over a threshold).

    Attributes:
        start: the score above which the tail begins.
        exceedances: scores above it that the fit has seen.
        shape: xi, maximum likelihood within -1 to 1; below 0 the tail ends somewhere.
        scale: beta, in units of the score.
    """

    start: _Finite
    exceedances: _Positive
    shape: _Finite
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LabelledThreshold(_Section):
    """The threshold of largest F1 on labelled pictures; for comparison, it decides nothing."""

    value: _Finite
    f1: _Rate
    good: _Positive
    defective: _Positive


class Threshold(_Section):
    """A frame whose score is at or above ``value`` is anomalous.

    Attributes:
        value: of the image score.
        map_value: the same rule applied to the largest value of the anomaly map; it draws the
            contour.
        rule: how it was found, for people.
        false_alarm_rate: the expected share of good frames at or above ``value``.
        interval: 95 % interval of the score that this share of good frames reaches; ``None``
            where the threshold was not derived from normal scores.
        supported_rate: the smallest rate that so many normal scores vouch for without their
            tail being extrapolated, 1 / (N + 1).
        supported_value: the threshold for that rate.
        tail: the fit of image scores behind it; ``None`` where none was made.
        f1_max: beside it, where labelled pictures were at hand.
    """

    value: _Finite
    map_value: _Finite
    rule: str
    false_alarm_rate: _Rate
    interval: tuple[_Finite, _Finite] | None = None
    supported_rate: _Rate | None = None
    supported_value: _Finite | None = None
    tail: Tail | None = None
    f1_max: LabelledThreshold | None = None


class NormalScores(_Section):
    """Image scores of good pictures that the bank has not seen, in ascending order.

    ``source`` says how they were had: every picture judged by a bank without it (``cross-fit``),
    pictures that never entered the bank that ships (``calibration-split``), both (``mixed``: a
    model that was extended another way than it was fitted), or pictures of the line (``line``).
    ``carried_over`` says that they were so had with the float32 model, and brought to the scale of
    this one.
    """

    scores: tuple[_Finite, ...] = Field(min_length=1)
    map_maxima: tuple[_Finite, ...] = Field(min_length=1)
    mean: _Finite
    std: _Finite
    source: Literal["cross-fit", "calibration-split", "mixed", "line"] = "cross-fit"
    carried_over: bool = False


class PictureSet(_Section):
    """Good pictures that were given at once; the digest is over their contents."""

    images: _Positive
    skipped_unreadable: _Count
    sha256: _Digest


class TrainingSet(_Section):
    """The good pictures a model was fitted on.

    Attributes:
        images: all that were read, held out or not.
        skipped_unreadable: left out because they could not be read.
        sha256: over their contents; over the digests of the parts where there are several.
        calibration_images: of ``images``, those that never entered the bank.
        parts: what the model was fitted on first, and each extension; empty without extension.
    """

    images: _Positive
    skipped_unreadable: _Count
    sha256: _Digest
    calibration_images: _Count = 0
    parts: tuple[PictureSet, ...] = ()


class Parity(_Section):
    """Largest differences between the exported file and the fitted module, on real frames.

    ``tied_patches`` have neighbours equally far but for rounding; what another choice among these
    changes is not counted as a difference.
    """

    frames: _Positive
    image_score_max_relative_error: _Finite
    anomaly_map_max_relative_error: _Finite
    influence_map_max_error: _Finite
    batch_max_relative_error: _Finite
    tied_patches: _Count = 0


class Quantization(_Section):
    """How the ranges of an INT8 backbone were found.

    Attributes:
        method: ``minmax``, ``entropy`` or ``percentile``.
        images: good pictures that were looked at.
        sha256: over their contents.
        float_layers: names of the layers that were not quantised.
        classes: whose pictures they were: several where these share one graph, and perhaps not
            this one; empty where the model was written before that was noted.
        percentile: share of the values that was not clipped, in %; ``None`` where the method is
            another, or the model was written before that was noted.
    """

    method: Literal["minmax", "entropy", "percentile"]
    images: _Positive
    sha256: _Digest
    float_layers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    percentile: _Finite | None = None


class GateLimits(_Section):
    """What a converted model was allowed to differ by; see docs/precision.md."""

    rank_correlation: _Finite
    map_error: _Finite
    verdict_changes: _Finite
    image_auroc: _Finite
    pixel_auroc: _Finite


class Gate(_Section):
    """A converted model beside the float32 one, picture by picture; see docs/precision.md.

    Attributes:
        images: good pictures compared; none was judged by its own rows of the bank.
        rank_correlation: Spearman's, of the image scores of good and labelled pictures.
        map_error: 95 % of the anomaly maps' values differ by less, in parts of the map threshold.
        verdict_changes: share of all pictures whose verdict at the own threshold differs.
        labelled_images: labelled pictures compared, 0 where there were none.
        image_auroc_change: converted less float32; ``None`` without labelled pictures.
        pixel_auroc_change: likewise.
        problems: the limits that were passed, as sentences; empty where it was let out.
        is_forced: whether it was written in spite of problems.
        limits: what was accepted; ``None`` where the model was written before that was noted.
        left_out: pictures that were not compared, because without their own rows the bank has
            fewer rows than neighbours.
        time_ratio: time of an inference in parts of the float32 model's, where it was converted
            (ONNX Runtime, CPU); ``None`` as for ``limits``.
    """

    images: _Positive
    rank_correlation: _Finite
    map_error: _Finite
    verdict_changes: _Rate
    labelled_images: _Count = 0
    image_auroc_change: _Finite | None = None
    pixel_auroc_change: _Finite | None = None
    problems: tuple[str, ...] = ()
    is_forced: bool = False
    limits: GateLimits | None = None
    left_out: _Count = 0
    time_ratio: _Finite | None = None


class Conversion(_Section):
    """What was done to the float32 model; ``None`` in the manifest of one that was not converted.

    ``quantization`` is ``None`` unless the precision is ``int8``. ``half_bank_problems`` says, with
    figures, why the bank of an ``fp16`` model stayed in float32; it is empty where it did not.
    """

    quantization: Quantization | None
    gate: Gate
    half_bank_problems: tuple[str, ...] = ()


class OnnxFile(_Section):
    """The model file that this manifest belongs to. ``None`` in the file's own copy."""

    file: str
    sha256: _Digest


class Manifest(_Section):
    """What is known about one exported model. JSON round-trips exactly."""

    schema_version: Literal[1] = SCHEMA_VERSION
    class_name: str = Field(alias="class", min_length=1)
    method: str
    score: str
    precision: Precision
    model_size: ModelSize
    preprocessing: Preprocessing
    backbone: Backbone
    memory_bank: MemoryBank
    distance_statistics: DistanceStatistics
    threshold: Threshold
    normal_scores: NormalScores
    training_set: TrainingSet
    parity: Parity | None
    onnx: OnnxFile | None
    versions: dict[str, str]
    conversion: Conversion | None = None

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
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].lower()}"
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
