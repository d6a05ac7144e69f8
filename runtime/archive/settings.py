"""What the scores of an archive depend on: model, threshold, batches, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from patchline.runtime.bank import check_fits, check_given, load_bank
from patchline.runtime.contract import Manifest, manifest_path
from patchline.runtime.errors import ConfigurationError, ManifestError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.graph import load_any_manifest
from patchline.runtime.manifest.section import Digest, Finite, Positive, Section
from patchline.runtime.verdict import map_threshold

_OPTIONS = {
    "class_name": "the class",
    "score_name": "the score",
    "model_sha256": "the digest of --model",
    "model_format": "the format of --model",
    "bank_sha256": "the digest of --bank",
    "threshold": "the threshold",
    "map_value": "the threshold of the map",
    "has_boxes": "--boxes",
    "thumbnails_px": "--thumbnails",
    "batch_size": "--batch-size",
    "partition_size": "--partition-size",
}
_DIGEST_DIGITS = 12


class Settings(Section):
    """What must be the same in all parts of one target.

    Attributes:
        class_name: the product.
        score_name: the score function.
        model_sha256: digest of the ONNX file, also where its plan is run.
        model_format: what is run: an ONNX file or a TensorRT plan of it.
        bank_sha256: digest of the ``.bank`` file, for a model without one.
        threshold: a picture at or above it is anomalous.
        map_value: a part of the map at or above it is boxed.
        has_boxes: whether boxes are written.
        thumbnails_px: longer side of the map's thumbnails; ``None`` for none.
        batch_size: pictures in one call of the engine.
        partition_size: pictures in one part.
    """

    class_name: str
    score_name: str
    model_sha256: Digest
    model_format: Literal["onnx", "trt"]
    bank_sha256: Digest | None
    threshold: Finite
    map_value: Finite
    has_boxes: bool
    thumbnails_px: Annotated[int, Field(ge=8)] | None
    batch_size: Positive
    partition_size: Positive


def make_settings(
    model: Path,
    bank: Path | None,
    *,
    threshold: float | None = None,
    has_boxes: bool = True,
    thumbnails_px: int | None = None,
    batch_size: int = 1,
    partition_size: int = 1000,
) -> Settings:
    """Settings from the files of a model; no engine is opened.

    Args:
        model: an ``.onnx`` file or a ``.trt`` plan, its manifest beside it.
        bank: a product's bank, for a model without one.
        threshold: of the image score, in place of the manifest's.
        has_boxes: whether boxes are written.
        thumbnails_px: longer side of the map's thumbnails; ``None`` for none.
        batch_size: pictures in one call of the engine.
        partition_size: pictures in one part.

    Raises:
        ConfigurationError: the file is of no known format, or a bank is missing or unwanted.
        ModelError: manifest or bank is missing, damaged or of another model.
    """
    if model.suffix.lower() not in (".onnx", ".trt"):
        raise ConfigurationError(
            f"no engine runs {model.name!r}: expected a model file ending in .onnx or .trt"
        )
    manifest, (model_sha256, bank_sha256) = product_of(model, bank), model_digests(model, bank)
    return Settings(
        class_name=manifest.class_name,
        score_name=manifest.score,
        model_sha256=model_sha256,
        model_format="onnx" if model.suffix.lower() == ".onnx" else "trt",
        bank_sha256=bank_sha256,
        threshold=manifest.threshold.value if threshold is None else threshold,
        map_value=map_threshold(manifest.threshold, threshold),
        has_boxes=has_boxes,
        thumbnails_px=thumbnails_px,
        batch_size=batch_size,
        partition_size=partition_size,
    )


def product_of(model: Path, bank: Path | None) -> Manifest:
    """The manifest that decides: the model's own, or its bank's.

    Raises:
        ConfigurationError: a bank is missing or unwanted.
        ModelError: as for :func:`make_settings`.
    """
    graph = load_any_manifest(manifest_path(model))
    check_given(graph, bank, model)
    if isinstance(graph, Manifest):
        return graph
    assert bank is not None  # check_given
    read = load_bank(bank)
    check_fits(read, graph, model)
    return read.manifest


def model_digests(model: Path, bank: Path | None) -> tuple[str, str | None]:
    """The digest of the ONNX file, as its manifest has it, and that of the bank file.

    Whoever opens an engine compares the manifest's digest with the file itself.

    Raises:
        ManifestError: the manifest is missing, damaged or has no digest.
    """
    path = manifest_path(model)
    onnx = load_any_manifest(path).onnx
    if onnx is None:
        raise ManifestError(f"{path}: onnx: the field is missing. Export the model again")
    return onnx.sha256, None if bank is None else sha256_of_file(bank)


def differences(before: Settings, now: Settings) -> list[str]:
    """Sentences such as ``--batch-size was 8 and is 1``, one for each setting that differs."""
    return [
        f"{_OPTIONS[name]} was {_short(name, getattr(before, name))} and is "
        f"{_short(name, getattr(now, name))}"
        for name in Settings.model_fields
        if getattr(before, name) != getattr(now, name)
    ]


def _short(name: str, value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{str(value)[:_DIGEST_DIGITS]}…" if name.endswith("_sha256") else str(value)
