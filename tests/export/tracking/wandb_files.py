"""Reads an offline run of Weights & Biases without its own reader: LevelDB's log format.

A header of 7 bytes, then blocks of 32 KiB with pieces of records: CRC, length, kind (1 a whole
record, 2 to 4 its first, middle and last piece), each record a protobuf message.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _PIECE = 1 << 15, struct.Struct("<IHB")


def run_folder(folder: Path) -> Path:
    """The one offline run below ``folder``."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    return run


def read_run(folder: Path) -> list[Any]:
    """All records of the one offline run below ``folder``."""
    (file,) = run_folder(folder).glob("*.wandb")
    return read_file(file)


def read_file(file: Path) -> list[Any]:
    """All records of one ``.wandb`` file."""
    content = file.read_bytes()
    assert content.startswith(b":W&B")
    return [wandb_internal_pb2.Record.FromString(record) for record in _records(content)]


def of_kind(records: list[Any], kind: str) -> list[Any]:
    """The contents of all records of one kind."""
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


def items(entries: Any) -> dict[str, Any]:
    """Keys and values of a history, config or summary; nested keys are joined by a full stop."""
    return {
        ".".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries
    }


def _records(content: bytes) -> Iterator[bytes]:
    at, pieces = 7, b""
    while at + _PIECE.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE.size:
            at += left
            continue
        _, length, kind = _PIECE.unpack_from(content, at)
        pieces += content[at + _PIECE.size : at + _PIECE.size + length]
        at += _PIECE.size + length
        if kind in (1, 4):
            yield pieces
            pieces = b""
