"""``part-00000.parquet``: the rows of one part, and what came of it in the file's metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchline.runtime.archive.arrow import import_pyarrow
from patchline.runtime.archive.settings import Settings
from patchline.runtime.decisions.event import Region
from patchline.runtime.errors import DataError

GOOD, ANOMALOUS = "good", "anomalous"
"""The values of the column ``verdict``."""

NAMED_ERRORS = 3
"""So many errors of a part are kept in its metadata; the column ``error`` has all of them."""

_SETTINGS, _RESULT = "patchline.settings", "patchline.part"


@dataclass(frozen=True)
class Row:
    """One picture of the dataset.

    Attributes:
        path: relative to the archive.
        score: raw image score; ``None`` where ``error`` says why.
        boxes: in pixels of the picture; ``None`` where none were asked for.
        width: of the picture, in pixels; ``None`` where it could not be read.
        height: likewise.
        error: why there is no score, as a sentence.
        thumbnail: of the anomaly map, a PNG; ``None`` where none was asked for.
    """

    path: str
    score: float | None = None
    boxes: tuple[Region, ...] | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class PartResult:
    """What came of one part.

    Attributes:
        number: of the part.
        pictures: rows.
        anomalous: pictures at or above the threshold.
        unreadable: pictures that could not be read.
        not_finite: pictures for which the model gave NaN or infinity.
        engine: what scored it, for people.
        errors: the first few sentences of the column ``error``.
    """

    number: int
    pictures: int
    anomalous: int
    unreadable: int
    not_finite: int
    engine: str
    errors: tuple[str, ...]


def part_name(number: int) -> str:
    """The file of a part: ``part-00003.parquet``."""
    return f"part-{number:05d}.parquet"


def part_content(rows: Sequence[Row], settings: Settings, result: PartResult) -> bytes:
    """The bytes of a part's file: Parquet, compressed with zstd.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow()
    metadata = _metadata(settings) | {_RESULT: json.dumps(asdict(result))}
    columns = [_columns(row, settings.threshold) for row in rows]
    table = pyarrow.Table.from_pylist(columns, schema=part_schema(metadata))
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def part_schema(metadata: Mapping[str, str] | None = None) -> Any:
    """The fixed ``pyarrow.Schema`` of every part."""
    arrow, _ = import_pyarrow()
    sides = [arrow.field(name, arrow.int32()) for name in ("x", "y", "width", "height")]
    box = arrow.struct([*sides, arrow.field("score", arrow.float64())])
    fields = [
        arrow.field("path", arrow.string(), nullable=False),
        # Twice the engine's precision: pandas would round a threshold to float32 to compare.
        arrow.field("score", arrow.float64()),
        arrow.field("threshold", arrow.float64(), nullable=False),
        arrow.field("verdict", arrow.string()),
        arrow.field("boxes", arrow.list_(box)),
        arrow.field("width", arrow.int32()),
        arrow.field("height", arrow.int32()),
        arrow.field("error", arrow.string()),
        arrow.field("thumbnail", arrow.binary()),
    ]
    return arrow.schema(fields, metadata=dict(metadata or {}))


def read_result(path: Path, settings: Settings, pictures: int) -> PartResult:
    """What came of a part that was written earlier; its rows are not read.

    Args:
        path: the file.
        settings: of the target.
        pictures: how many rows are expected.

    Raises:
        DataError: the file is damaged, or is no part of this target.
    """
    pyarrow, parquet = import_pyarrow()
    try:
        footer = parquet.read_metadata(path)
        metadata = {key.decode(): value.decode() for key, value in (footer.metadata or {}).items()}
        found = json.loads(metadata.get(_RESULT, "{}"))
        result = PartResult(**{**found, "errors": tuple(found.get("errors", ()))})
    except (pyarrow.ArrowException, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged or no part of this target ({type(error).__name__}). Remove it and "
            "call score-archive again, which scores that part again"
        ) from error
    if metadata.get(_SETTINGS) != settings.model_dump_json() or footer.num_rows != pictures:
        raise DataError(
            f"{path} has {footer.num_rows} rows for {pictures} pictures, or was scored with other "
            "settings: it is no part of this target. Remove it and call score-archive again"
        )
    return result


def _metadata(settings: Settings) -> dict[str, str]:
    return {
        "patchline.class": settings.class_name,
        "patchline.model_sha256": settings.model_sha256,
        "patchline.score": settings.score_name,
        _SETTINGS: settings.model_dump_json(),
    }


def _columns(row: Row, threshold: float) -> dict[str, Any]:
    verdict = None if row.score is None else ANOMALOUS if row.score >= threshold else GOOD
    boxes = None if row.boxes is None else [_box(region) for region in row.boxes]
    return {**vars(row), "threshold": threshold, "verdict": verdict, "boxes": boxes}


def _box(region: Region) -> dict[str, Any]:
    sides = {name: getattr(region, name) for name in ("x", "y", "width", "height")}
    return {**sides, "score": region.peak}
