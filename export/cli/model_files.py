"""Which model files and banks a command was given, and for which class each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.bank import BANK_SUFFIX, check_given, load_bank
from patchline.runtime.contract import Manifest, manifest_path
from patchline.runtime.errors import ConfigurationError, ManifestError, ModelError
from patchline.runtime.graph import GraphManifest, differing_fields, graph_of, load_any_manifest


@dataclass(frozen=True)
class ModelFiles:
    """What judges one class.

    Attributes:
        model: the ``.onnx`` file.
        bank: the class's ``.bank`` file, where the model has no bank of its own.
    """

    model: Path
    bank: Path | None = None

    def __str__(self) -> str:
        return str(self.bank or self.model)


def models_by_class(given: Iterable[Path], banks: Iterable[Path] = ()) -> dict[str, ModelFiles]:
    """Class name -> its files, in the order given.

    A model or bank whose manifest cannot be read goes by its file name: opening it says why.

    Args:
        given: model files, and folders of ``.onnx`` files. A graph without a bank that lies in
            such a folder stands for every class whose ``.bank`` lies there and fits it.
        banks: files for the one graph that is given; those of folders are not looked for then.

    Raises:
        ModelError: a file does not exist, or a folder holds no model, or banks without a graph.
        ConfigurationError: two models are for one class; a graph has no bank, or a bank none.
    """
    banks = list(dict.fromkeys(banks))
    for bank in banks:
        _check_file(bank)
    found = [files for path in given for files in _found(path, banks)]
    if banks and len({files.model for files in found}) > 1:
        raise ConfigurationError(
            f"--bank goes with one graph, and --model gives {len({f.model for f in found})} "
            "files. Give that graph alone"
        )
    models: dict[str, ModelFiles] = {}
    for files in dict.fromkeys(found):
        name = _class_of(files)
        if name in models:
            raise ConfigurationError(
                f"{models[name]} and {files} are both for class {name}. Evaluate them one by one"
            )
        models[name] = files
    return models


def _found(given: Path, banks: list[Path]) -> list[ModelFiles]:
    if not given.is_dir():
        _check_file(given)
        return _with_banks(given, banks)
    models = sorted(file for file in given.glob("*.onnx") if file.is_file())
    if not models:
        raise ModelError(f"{given} holds no .onnx file. export-model writes them")
    beside = {} if banks else _banks_of(given, models)
    return [one for model in models for one in _with_banks(model, banks or beside.get(model, []))]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} does not exist. export-model writes it")


def _with_banks(model: Path, banks: list[Path]) -> list[ModelFiles]:
    manifest = _manifest_of(model)
    if manifest is not None:
        check_given(manifest, banks[0] if banks else None, model)
    return [ModelFiles(model, bank) for bank in banks] or [ModelFiles(model)]


def _banks_of(folder: Path, models: list[Path]) -> dict[Path, list[Path]]:
    """The banks of a folder, each with the graph that it fits."""
    graphs = {model: _manifest_of(model) for model in models}
    banks: dict[Path, list[Path]] = {}
    for bank in sorted(file for file in folder.glob(f"*{BANK_SUFFIX}") if file.is_file()):
        candidates = [m for m, graph in graphs.items() if isinstance(graph, GraphManifest)]
        if not candidates:
            raise ModelError(
                f"{bank} is there without its graph. Copy the .onnx and .json that it was "
                "exported with beside it, or give --model the file that is meant"
            )
        fitting = [model for model in candidates if _fits(bank, graphs[model])]
        # Where none fits, opening it with any of them says in what they differ.
        banks.setdefault((fitting or candidates)[0], []).append(bank)
    return banks


def _fits(bank: Path, graph: object) -> bool:
    manifest = _bank_manifest(bank)
    if manifest is None or not isinstance(graph, GraphManifest):
        return False
    return not differing_fields(graph_of(manifest), graph)


def _manifest_of(model: Path) -> Manifest | GraphManifest | None:
    try:
        return load_any_manifest(manifest_path(model))
    except ManifestError:
        return None


def _bank_manifest(bank: Path) -> Manifest | None:
    try:
        return load_bank(bank).manifest
    except ModelError:
        return None


def _class_of(files: ModelFiles) -> str:
    if files.bank is not None:
        product = _bank_manifest(files.bank)
        return product.class_name if product else files.bank.stem
    manifest = _manifest_of(files.model)
    return manifest.class_name if isinstance(manifest, Manifest) else files.model.stem
