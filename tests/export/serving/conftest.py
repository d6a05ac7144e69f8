"""Models of each kind, exported once, and copies of them to be served and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from patchline.export.exporter import export_model
from patchline.export.fit import FittedModel
from patchline.export.serving.found_model import FoundModel, find_model
from patchline.runtime.bank import Bank, load_bank, save_bank
from patchline.runtime.progress import SilentSteps

from ..drawn import CLASS_NAME, settings_with

OTHER = "washer"
"""A second class on the same graph."""


@pytest.fixture(scope="session")
def external_export(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one graph and the banks of two classes; only to be read."""
    folder = tmp_path_factory.mktemp("external")
    path = export_model(fitted, settings_with(bank="external"), folder, SilentSteps())
    save_bank(other_bank(load_bank(path)), folder / f"{OTHER}.bank")
    return folder


def other_bank(bank: Bank, factor: float = 1.25, name: str = OTHER) -> Bank:
    """Another class's: rows and their squares scaled, another threshold."""
    manifest = bank.manifest
    threshold = manifest.threshold.model_copy(update={"value": manifest.threshold.value * 2})
    tensors = dict(bank.tensors)
    tensors["memory_bank"] = tensors["memory_bank"] * tensors["memory_bank"].dtype.type(factor)
    rows = manifest.required_bank().rows
    squares = tensors["bank_squares"].copy()
    squares[:rows] *= squares.dtype.type(factor**2)
    tensors["bank_squares"] = squares
    changed = manifest.model_copy(update={"class_name": name, "threshold": threshold})
    return Bank(changed, tensors)


@pytest.fixture
def external(external_export: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed at will."""
    return Path(shutil.copytree(external_export, tmp_path / "external"))


@pytest.fixture
def whole(model: Path) -> FoundModel:
    """A model with its bank inside; its files may be changed."""
    return find_model(model.parent, CLASS_NAME)
