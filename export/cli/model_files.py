"""Which model files a command was given, and for which class each is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.errors import ConfigurationError, ManifestError, ModelError


def models_by_class(given: Iterable[Path]) -> dict[str, Path]:
    """Class name -> model file, in the order given.

    A model whose manifest cannot be read goes by its file name: opening it says why.

    Args:
        given: model files, and folders of ``.onnx`` files.

    Raises:
        ModelError: a file does not exist, or a folder holds no model.
        ConfigurationError: two models are for one class.
    """
    models: dict[str, Path] = {}
    for path in dict.fromkeys(file for item in given for file in _files(item)):
        name = _class_of(path)
        if name in models:
            raise ConfigurationError(
                f"{models[name]} and {path} are both for class {name}. Evaluate them one by one"
            )
        models[name] = path
    return models


def _files(given: Path) -> list[Path]:
    if given.is_dir():
        files = sorted(file for file in given.glob("*.onnx") if file.is_file())
        if not files:
            raise ModelError(f"{given} holds no .onnx file. export-model writes them")
        return files
    if not given.is_file():
        raise ModelError(f"{given} does not exist. export-model writes it")
    return [given]


def _class_of(path: Path) -> str:
    try:
        return load_manifest(manifest_path(path)).class_name
    except ManifestError:
        return path.stem
