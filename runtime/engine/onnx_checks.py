"""An ONNX file against the manifest beside it: the same digest, the same copy inside, the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchline.runtime import contract
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.checks import check_resize
from patchline.runtime.errors import ManifestError, ModelError
from patchline.runtime.graph import (
    MEMORY_BANK,
    GraphManifest,
    bank_inputs,
    differing_fields,
    parse_any_manifest,
)

AnyManifest = Manifest | GraphManifest

_BANK_TYPES = {"fp32": "tensor(float)", "fp16": "tensor(float16)"}


def check_digest(path: Path, manifest: AnyManifest) -> None:
    """Refuse a file that the manifest was not written for.

    Raises:
        ManifestError: it is another.
    """
    if manifest.onnx is None:
        raise ManifestError(f"{contract.manifest_path(path)}: onnx: the field is missing")
    found = contract.model_digest(path)
    if found != manifest.onnx.sha256:
        raise ManifestError(
            f"{contract.manifest_path(path)}: onnx.sha256 is {manifest.onnx.sha256[:12]}…, but "
            f"{path.name} has {found[:12]}…. The two files are not from the same export, or one "
            "was changed: copy both again"
        )


def check_against_model(session: Any, manifest: AnyManifest, path: Path) -> None:
    """Compare an open session with the manifest.

    Args:
        session: of ONNX Runtime.
        manifest: as it lies beside the file.
        path: the file, for messages.

    Raises:
        ManifestError: the manifest was edited, or asks for another resize.
        ModelError: the file is no Patchline model.
    """
    beside = contract.manifest_path(path)
    text = session.get_modelmeta().custom_metadata_map.get(contract.METADATA_KEY)
    if text is None:
        raise ModelError(f"{path} holds no {contract.METADATA_KEY}: it is no Patchline model")
    differences = _differences(manifest, parse_any_manifest(text, str(path)))
    if differences:
        raise ManifestError(f"{beside} was edited. {'; '.join(differences)}")
    check_resize(manifest, beside)
    bank = bank_inputs(manifest.score) if isinstance(manifest, GraphManifest) else ()
    _check_names(path, "inputs", session.get_inputs(), (contract.FRAMES, *bank))
    _check_names(path, "outputs", session.get_outputs(), contract.OUTPUTS)
    if isinstance(manifest, GraphManifest):
        _check_bank_type(path, session.get_inputs(), manifest)


def _check_names(path: Path, what: str, items: list[Any], expected: tuple[str, ...]) -> None:
    names = [item.name for item in items]
    if names != list(expected):
        raise ModelError(f"{path} has {what} {names}, expected {list(expected)}")


def _check_bank_type(path: Path, items: list[Any], manifest: GraphManifest) -> None:
    (found,) = (item.type for item in items if item.name == MEMORY_BANK)
    expected = _BANK_TYPES[manifest.bank_precision]
    if found != expected:
        raise ModelError(
            f"{path} takes its {MEMORY_BANK} as {found}, and its manifest says {expected}. Export "
            "it again"
        )


def _differences(beside: AnyManifest, inside: AnyManifest) -> list[str]:
    if isinstance(beside, GraphManifest) and isinstance(inside, GraphManifest):
        return differing_fields(beside, inside)
    if isinstance(beside, Manifest) and isinstance(inside, Manifest):
        return contract.differing_fields(beside, inside)
    return ["it and the model's own copy differ in whether the graph holds a memory bank"]
