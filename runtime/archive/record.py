"""``_patchline.json`` and the listing beside it: what the parts of a target were made of (issue 9).

The record says with what the parts are scored and names the file of the listing, which says what
picture is in which part. Readers of Parquet datasets pass over names that begin with ``_``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from patchline.runtime.archive.arrow import import_pyarrow
from patchline.runtime.archive.listing import ListedPicture, listing_digest
from patchline.runtime.archive.parts import Part
from patchline.runtime.archive.settings import Settings
from patchline.runtime.errors import DataError
from patchline.runtime.files import write_atomically
from patchline.runtime.manifest.section import Count, Digest, Section

RECORD = "_patchline.json"

_LISTINGS = "_listing-*.parquet"


class TargetRecord(Section):
    """``_patchline.json``.

    Attributes:
        schema_version: of this file.
        settings: what the parts are scored with.
        images: the archive, as it was given.
        listing: file of the listing, beside this one.
        listing_sha256: over paths, sizes and times of its pictures in the order of the parts.
        pictures: in all parts.
        parts: how many.
        versions: of Patchline.
    """

    schema_version: Literal[1] = 1
    settings: Settings
    images: str
    listing: str
    listing_sha256: Digest
    pictures: Count
    parts: Count
    versions: dict[str, str]


def save_record(folder: Path, parts: Sequence[Part], images: str, settings: Settings) -> None:
    """Write the listing and then the record that names it: never one without the other.

    Raises:
        WriteError: the folder cannot be written.
    """
    pictures = [picture for part in parts for picture in part.pictures]
    digest = listing_digest(pictures)
    listing = f"_listing-{digest[:16]}.parquet"
    record = TargetRecord(
        settings=settings,
        images=images,
        listing=listing,
        listing_sha256=digest,
        pictures=len(pictures),
        parts=len(parts),
        versions={"patchline": version("patchline")},
    )
    document = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False)
    write_atomically(folder / listing, _content(parts))
    write_atomically(folder / RECORD, f"{document}\n".encode())
    for old in folder.glob(_LISTINGS):
        if old.name != listing:
            old.unlink(missing_ok=True)


def load_record(folder: Path) -> TargetRecord | None:
    """What the record of a target says; ``None`` where there is none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return TargetRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _damaged(path) from error


def load_parts(folder: Path, record: TargetRecord) -> list[Part]:
    """All parts of a target, as they were listed.

    Raises:
        DataError: the listing is damaged or missing.
    """
    pyarrow, parquet = import_pyarrow()
    path = folder / record.listing
    try:
        parts = _parts(parquet.read_table(path).to_pylist())
    except (pyarrow.ArrowException, OSError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    pictures = (picture for part in parts for picture in part.pictures)
    if listing_digest(pictures) != record.listing_sha256:
        raise _damaged(path)
    return parts


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged or missing, so that nobody knows what the parts beside it hold. Score "
        "all of it again with --again"
    )


def _content(parts: Sequence[Part]) -> bytes:
    pyarrow, parquet = import_pyarrow()
    rows = [(part.number, picture) for part in parts for picture in part.pictures]
    table = pyarrow.table(
        {
            "part": pyarrow.array([number for number, _ in rows], pyarrow.int32()),
            "path": pyarrow.array([picture.path for _, picture in rows], pyarrow.string()),
            "size_bytes": pyarrow.array([one.size_bytes for _, one in rows], pyarrow.int64()),
            "mtime_ns": pyarrow.array([one.mtime_ns for _, one in rows], pyarrow.int64()),
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _parts(rows: Sequence[dict[str, Any]]) -> list[Part]:
    return [
        Part(
            number,
            tuple(ListedPicture(row["path"], row["size_bytes"], row["mtime_ns"]) for row in group),
        )
        for number, group in groupby(rows, key=lambda row: int(row["part"]))
    ]
