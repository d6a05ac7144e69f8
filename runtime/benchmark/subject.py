"""The engine that is measured: its files, its model, how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.runtime.benchmark.measurable import Measurable
from patchline.runtime.contract import Manifest, MemoryBank, manifest_path, model_digest
from patchline.runtime.engine.base import EngineFacts
from patchline.runtime.files import sha256_of_file
from patchline.runtime.graph import load_any_manifest

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Subject:
    """What an engine was opened from.

    Attributes:
        engine: open.
        path: the model or its plan.
        bank: the product's memory bank, for a model without one.
    """

    engine: Measurable
    path: Path
    bank: Path | None = None

    @property
    def name(self) -> str:
        """``bottle.onnx``, or ``resnet18-256.trt with bottle.bank``."""
        return f"{self.path.name} with {self.bank.name}" if self.bank else self.path.name

    def document(self) -> dict[str, Any]:
        """Files with their digests, and the model, as JSON."""
        manifest, onnx = self.engine.manifest, load_any_manifest(manifest_path(self.path)).onnx
        return {
            "file": self.path.name,
            "sha256": model_digest(self.path),
            "onnx_sha256": onnx.sha256 if onnx else None,
            "bank": self._bank(),
            **model_document(manifest),
        }

    def _bank(self) -> dict[str, Any] | None:
        if self.bank is None:
            return None
        return {"file": self.bank.name, "sha256": sha256_of_file(self.bank)}


def model_document(manifest: Manifest) -> dict[str, Any]:
    """What a time depends on, of a manifest, as JSON; ``None`` where there is no memory bank."""
    size, bank = manifest.model_size, manifest.memory_bank
    return {
        "class": manifest.class_name,
        "method": manifest.method,
        "score": manifest.score,
        "precision": manifest.precision,
        "backbone": manifest.backbone.name,
        "image_size_px": [size.height, size.width],
        "bank_rows": bank and bank.rows,
        "dimension": bank and bank.dimension,
        "search": bank and _search(bank),
    }


def _search(bank: MemoryBank) -> str:
    if bank.search is None:
        return "exact"
    return f"pruned: {bank.search.leading} coordinates, {bank.search.candidates} candidates"


def mode_document(facts: EngineFacts) -> dict[str, Any]:
    """How an engine runs, as JSON."""
    return {
        "runtime": facts.runtime,
        "version": facts.version,
        "provider": facts.provider,
        "gpu": facts.gpu,
        "threads": facts.threads,
        "cuda_graph": facts.cuda_graph,
        "transfers": "none" if facts.provider == CPU_PROVIDER else "counted",
        "wait": facts.wait.value,
        "batch": {"least": facts.least_batch, "most": facts.most_batch},
        "in_flight": facts.in_flight,
    }


def differences(first: Manifest, second: Manifest) -> list[str]:
    """What of two models makes a comparison of their times unequal, as sentences."""
    found = []
    sizes = [f"{m.model_size.height} x {m.model_size.width} px" for m in (first, second)]
    if sizes[0] != sizes[1]:
        found.append(f"the models take frames of different size: {sizes[0]} and {sizes[1]}")
    if first.class_name != second.class_name:
        found.append(
            f"the models are of different classes: {first.class_name} and {second.class_name}"
        )
    banks = [m.memory_bank for m in (first, second)]
    rows = [bank.rows for bank in banks if bank is not None]
    if len(rows) == 1:
        found.append(
            f"only one of the models has a memory bank: their methods are {first.method} and "
            f"{second.method}"
        )
    elif len(set(rows)) > 1:
        found.append(f"the memory banks have different sizes: {rows[0]:,} and {rows[1]:,} rows")
    return found
