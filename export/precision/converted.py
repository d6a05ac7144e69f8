"""What a conversion to FP16 or INT8 gives, and what one may start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx

from patchline.export.external_bank import bank_tensors
from patchline.export.onnx_graph import save_onnx
from patchline.export.precision.compare import Pairs
from patchline.export.precision.form import Form
from patchline.export.precision.masked import MaskedModel
from patchline.runtime.contract import Gate, Manifest, Quantization

AnyJudged = TypeVar("AnyJudged", bound="Judged")


@dataclass(frozen=True)
class GivenGraph:
    """An INT8 graph of all classes that is there already, and how it was quantised."""

    path: Path
    quantization: Quantization

    @property
    def note(self) -> str:
        """That it stays, and on what its ranges were found."""
        how = self.quantization
        whose = ", ".join(how.classes) or "the class that was first"  # an older one does not say
        kept = f"; in float: {', '.join(how.float_layers)}" if how.float_layers else ""
        return (
            f"{self.path.name} is there already and stays as it is: its ranges were found on "
            f"{how.images} pictures of {whose} ({how.method}{kept})"
        )


@dataclass(frozen=True)
class Judged:
    """What a conversion is worth: it passed the gate, or was forced through it.

    Attributes:
        manifest: of the model, with its threshold and the gate's figures; without parity or file.
        float32: manifest of the float32 model, for the state.
        pairs: what both models say of good pictures.
        gate: the figures, as in the manifest.
    """

    manifest: Manifest
    float32: Manifest
    pairs: Pairs
    gate: Gate

    def forced(self: AnyJudged) -> AnyJudged:
        """The same; where it has problems, the manifest says that it was forced past them."""
        if not self.gate.problems:
            return self
        gate = self.gate.model_copy(update={"is_forced": True})
        return replace(self, gate=gate, manifest=self._manifest_with(gate=gate))

    def _manifest_with(self, **changes: Any) -> Manifest:
        """The manifest with changes in the record of the conversion."""
        conversion = self.manifest.conversion
        if conversion is None:
            raise ValueError("a converted model has a conversion")
        changed = conversion.model_copy(update=changes)
        return self.manifest.model_copy(update={"conversion": changed})


@dataclass(frozen=True)
class Converted(Judged):
    """A converted model with a memory bank.

    Attributes:
        form: what its files are made from.
        graph: the graph with an external bank that was judged.
        notes: what else there is to say, as sentences.
    """

    form: Form
    graph: onnx.ModelProto
    notes: tuple[str, ...] = ()

    def open(self, path: Path) -> MaskedModel:
        """The graph that was judged, written to ``path``.

        Raises:
            ModelError: ONNX Runtime cannot open it.
        """
        return open_graph(self.graph, self.form, self.manifest, path)

    def with_float32_bank(self, problems: Sequence[str]) -> Converted:
        """The same, saying what was wrong with the memory bank in half precision."""
        note = f"the memory bank stays in float32; in half precision: {'; '.join(problems)}"
        manifest = self._manifest_with(half_bank_problems=tuple(problems))
        return replace(self, manifest=manifest, notes=(*self.notes, note))


def open_graph(graph: onnx.ModelProto, form: Form, manifest: Manifest, path: Path) -> MaskedModel:
    """Write a graph to ``path`` and open it with the bank of a form.

    Raises:
        ModelError: ONNX Runtime cannot open it.
    """
    save_onnx(graph, path)
    return MaskedModel(path, bank_tensors(form.detector.head), manifest)
