"""The files of a class that is there already: opened once, as a user will, before they are served.

Nothing is fitted here; a model that was altered, or whose bank is another graph's, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchline.runtime.bank import BANK_SUFFIX, Bank, load_bank
from patchline.runtime.contract import (
    Manifest,
    external_data_path,
    load_manifest,
    manifest_path,
    model_digest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.plans.record import PlanRecord, load_record, record_path
from patchline.runtime.errors import ConfigurationError, ManifestError, ModelError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.graph import (
    GraphManifest,
    differing_fields,
    graph_of,
    load_any_manifest,
)

Place = Literal["embedded", "external"]

PLAN_FLAVOUR = "tensorrt"
"""Triton's TensorRT backend opens plans of this flavour alone."""


@dataclass(frozen=True)
class FoundModel:
    """A class as it lies in a folder.

    Attributes:
        manifest: of the class, with its threshold.
        onnx: the model, or the graph without a bank.
        bank: of the class, where the graph holds none.
    """

    manifest: Manifest
    onnx: Path
    bank: Bank | None = None

    @property
    def name(self) -> str:
        """The class."""
        return self.manifest.class_name

    @property
    def files(self) -> tuple[Path, ...]:
        """The ONNX file, and the one with its tensors where there are more than 2 GiB."""
        data = external_data_path(self.onnx)
        return (self.onnx, data) if data.exists() else (self.onnx,)

    @property
    def onnx_sha256(self) -> str:
        """Digest of the model, or of the graph that all classes share."""
        return model_digest(self.onnx)

    @property
    def origin(self) -> Path:
        """The file that a user knows the class by."""
        return self.onnx if self.bank is None else self.bank.path


def find_model(folder: Path, name: str, place: Place | None = None) -> FoundModel:
    """The model of a class, checked as when a camera opens it.

    Args:
        folder: of ``NAME.onnx``, or of ``NAME.bank`` and its graph.
        name: the class.
        place: where its bank is; ``None`` for whichever is there.

    Raises:
        ModelError: there is none, or it is damaged, altered or for another graph.
        ConfigurationError: there are two, and ``place`` does not say which.
        EngineError: ONNX Runtime is not installed.
    """
    onnx, bank = folder / f"{name}.onnx", folder / f"{name}{BANK_SUFFIX}"
    if place is None:
        place = _place(onnx, bank)
    found = _with_bank(bank) if place == "external" else FoundModel(_whole(onnx), onnx)
    if found.name != name:
        raise ConfigurationError(
            f"{found.origin} is of the class {found.name}, expected {name}. Give the file its "
            "class's name again"
        )
    with open_engine(found.onnx, provider="cpu", bank=found.bank):
        return found


def place_in(folder: Path, name: str) -> Place | None:
    """Where the bank of a class is; ``None`` where there is no model of it, or one of each kind."""
    onnx, bank = folder / f"{name}.onnx", folder / f"{name}{BANK_SUFFIX}"
    has_onnx, has_bank = isinstance(_manifest_of(onnx), Manifest), bank.is_file()
    if has_onnx == has_bank:
        return None
    return "external" if has_bank else "embedded"


def classes_in(folder: Path) -> list[str]:
    """Names of the classes whose models lie in a folder, in alphabetical order.

    Raises:
        ModelError: there are none.
    """
    whole = {
        path.stem for path in folder.glob("*.onnx") if isinstance(_manifest_of(path), Manifest)
    }
    names = whole | {path.stem for path in folder.glob(f"*{BANK_SUFFIX}") if path.is_file()}
    if not names:
        raise ModelError(f"{folder} holds no model. export-model --cls NAME writes one")
    return sorted(names)


def find_plan(model: FoundModel) -> tuple[Path, PlanRecord]:
    """The plan beside a model, of this very model.

    Raises:
        ModelError: it is missing, cut short, or of another model.
        ConfigurationError: of TensorRT for RTX; one that takes no single frame; or the model's
            bank is an input.
    """
    plan = model.onnx.with_suffix(".trt")
    if model.bank is not None:
        raise ConfigurationError(
            f"{model.origin} would travel with every request, since a plan takes its bank as an "
            "input. Serve the ONNX model (without --serve-plan), or export with --bank embedded"
        )
    record = load_record(plan)
    if record.onnx_sha256 != model.onnx_sha256:
        raise ModelError(f"{plan} was built from another model than {model.onnx}. {_again(model)}")
    if not plan.is_file() or sha256_of_file(plan) != record.plan_sha256:
        raise ModelError(
            f"{plan} is not the file that {record_path(plan).name} is of. {_again(model)}"
        )
    if record.flavour != PLAN_FLAVOUR:
        raise ConfigurationError(
            f"{plan} was built with {record.flavour}, and Triton opens plans of TensorRT. Build it "
            f"on the server: build-engine {model.onnx} --flavour {PLAN_FLAVOUR}"
        )
    if record.options.batch[0] != 1:
        raise ConfigurationError(
            f"{plan} takes {record.options.batch[0]} frames or more, and a request may hold one. "
            f"Build it with --batch 1:{record.options.batch[1]}:{record.options.batch[2]}"
        )
    return plan, record


def _again(model: FoundModel) -> str:
    return f"Build it on the server's GPU: build-engine {model.onnx}"


def _place(onnx: Path, bank: Path) -> Place:
    has_onnx, has_bank = isinstance(_manifest_of(onnx), Manifest), bank.is_file()
    if has_onnx and has_bank:
        raise ConfigurationError(
            f"{onnx} and {bank} are both of the class {onnx.stem}. Remove the one that is of an "
            "earlier export"
        )
    return "external" if has_bank else "embedded"


def _whole(onnx: Path) -> Manifest:
    if not onnx.is_file():
        raise ModelError(
            f"{onnx} does not exist, and no {onnx.stem}{BANK_SUFFIX} beside it. export-model "
            f"--cls {onnx.stem} writes it"
        )
    return load_manifest(manifest_path(onnx))


def _with_bank(path: Path) -> FoundModel:
    bank = load_bank(path)
    wanted = graph_of(bank.manifest)
    graphs = {
        onnx: manifest
        for onnx in sorted(path.parent.glob("*.onnx"))
        if isinstance(manifest := _manifest_of(onnx), GraphManifest)
    }
    fitting = [onnx for onnx, graph in graphs.items() if not differing_fields(graph, wanted)]
    if not fitting:
        found = ", ".join(onnx.name for onnx in graphs) or "none"
        raise ModelError(
            f"{path} is there without its graph (graphs beside it: {found}). Copy the .onnx and "
            ".json that it was exported with beside it"
        )
    return FoundModel(bank.manifest, fitting[0], bank)


def _manifest_of(onnx: Path) -> Manifest | GraphManifest | None:
    try:
        return load_any_manifest(manifest_path(onnx)) if onnx.is_file() else None
    except ManifestError:
        return None  # opening it says what is wrong, where it is the one that is meant
