"""What a release of models is: names, digests and sizes, and files that belong together."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.bank import BANK_SUFFIX, Bank, check_fits, load_bank
from patchline.runtime.contract import manifest_path
from patchline.runtime.engine.onnx_checks import check_digest
from patchline.runtime.errors import ManifestError, ModelError
from patchline.runtime.graph import GraphManifest, load_any_manifest

FORMAT = "patchline_models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """One file of a release; ``bytes`` is its size."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Index:
    """What the web folder says the release is."""

    files: tuple[File, ...]

    @property
    def release(self) -> str:
        """What the release is called: a digest of names and contents."""
        lines = sorted(f"{file.sha256} {file.bytes} {file.name}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:24]


def parse_index(content: bytes) -> Index:
    """Raises: ModelError: it is no index, or names a file outside its own folder."""
    try:
        document = json.loads(content)
        if document[FORMAT] != 1:
            raise ValueError(f"{FORMAT} is {document[FORMAT]!r}, expected 1")
        files = tuple(File(**entry) for entry in document["files"])
        check_files(files)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the index cannot be read: {error}. Publish it again") from error
    return Index(files)


def check_files(files: tuple[File, ...]) -> None:
    """Raises: ValueError: they make no release."""
    for file in files:
        if not _NAME.fullmatch(file.name):
            raise ValueError(
                f"{file.name!r} is no plain file name (letters of ASCII, digits, '.', '_' and '-', "
                "the first a letter or a digit, 121 at most)"
            )
        if not _DIGEST.fullmatch(file.sha256) or type(file.bytes) is not int or file.bytes < 0:
            raise ValueError(f"{file.name} has no SHA-256, or no size")
    if not files or len({file.name.lower() for file in files}) < len(files):
        raise ValueError("there is no file, or two have one name")


def check_together(files: list[Path]) -> None:
    """Raises: ModelError: a model without its manifest, a digest or a bank of another model."""
    graphs = []
    for model in (path for path in files if path.suffix == ".onnx"):
        if manifest_path(model) not in files:
            raise ModelError(f"{model.name} comes without {manifest_path(model).name}: give both")
        manifest = load_any_manifest(manifest_path(model))
        check_digest(model, manifest)
        if isinstance(manifest, GraphManifest):
            graphs.append((manifest, model))
    for path in (path for path in files if path.suffix == BANK_SUFFIX):
        _check_bank(path, graphs)


def _check_bank(path: Path, graphs: list[tuple[GraphManifest, Path]]) -> None:
    """One graph of the release has to be its own; there may be others, of other sizes."""
    if not graphs:
        raise ModelError(
            f"{path.name} comes without its graph: give the .onnx and .json that it was exported "
            "with, which cost a device nothing where it has them"
        )
    bank = load_bank(path)
    reasons = [_why_not(bank, graph, model) for graph, model in graphs]
    if None not in reasons:
        raise ModelError(". ".join(map(str, reasons)))


def _why_not(bank: Bank, graph: GraphManifest, model: Path) -> str | None:
    try:
        check_fits(bank, graph, model)
    except ManifestError as error:
        return str(error)
    return None
