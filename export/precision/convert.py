"""Fitted model -> a model in FP16 or INT8 that is let out: converted, compared, its threshold.

The order is: the float32 graph, the converted graph, the gate between the two, the threshold. Both
are graphs with an external bank, so that no good picture is judged by its own rows of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from patchline.calibration.threshold import threshold_of_fit
from patchline.export.config import FitSettings
from patchline.export.detector import Detector
from patchline.export.evaluation.result import Evaluation
from patchline.export.external_bank import bank_tensors, check_external
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx
from patchline.export.precision.compare import OwnRows, Pairs, compare, evenly_spread
from patchline.export.precision.evidence import (
    check_overflow,
    evaluate_labelled,
    explain_overflow,
    foreign_pictures,
    own_rows_of,
)
from patchline.export.precision.form import Form
from patchline.export.precision.gate import LIMITS, Labelled, check_gate, gate
from patchline.export.precision.half import half_detector
from patchline.export.precision.int8_form import OnSensitivity, int8_form
from patchline.export.precision.masked import MaskedModel
from patchline.export.precision.threshold import carry_over, carrying_line
from patchline.runtime.contract import Conversion, Gate, Manifest, Quantization
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import Steps


@dataclass(frozen=True)
class GivenGraph:
    """An INT8 graph of all classes that is there already, and how it was quantised."""

    path: Path
    quantization: Quantization


@dataclass(frozen=True)
class Converted:
    """A converted model that passed the gate, or was forced through it.

    Attributes:
        form: what its files are made from.
        graph: the graph with an external bank that was judged.
        manifest: of the model, with its threshold and the gate's figures; without parity or file.
        float32: manifest of the float32 model, for the state.
        pairs: what both models say of good pictures.
        gate: the figures, as in the manifest.
        notes: what else there is to say, as sentences.
    """

    form: Form
    graph: onnx.ModelProto
    manifest: Manifest
    float32: Manifest
    pairs: Pairs
    gate: Gate
    notes: tuple[str, ...] = ()

    def open(self, path: Path) -> MaskedModel:
        """The graph that was judged, written to ``path``.

        Raises:
            ModelError: ONNX Runtime cannot open it.
        """
        return _open(self.graph, self.form, self.manifest, path)


def convert(
    fitted: FittedModel,
    float32: Manifest,
    settings: FitSettings,
    steps: Steps,
    *,
    data: Path | None = None,
    given: GivenGraph | None = None,
    is_forced: bool = False,
    on_sensitivity: OnSensitivity | None = None,
) -> Converted:
    """Convert a fitted model and find out whether it judges as before.

    Args:
        fitted: the float32 model; its pictures are those that are compared.
        float32: its manifest, with the normal scores that the promise rests on.
        settings: of precision ``fp16`` or ``int8``.
        steps: shows progress.
        data: folder of class folders in which the class may have labelled pictures.
        given: an INT8 graph that is taken as it is.
        is_forced: whether to give the model in spite of the gate.
        on_sensitivity: told what each layer costs in INT8, before the gate.

    Raises:
        GateError: a limit is passed, or the model gives NaN or infinity.
        ConfigurationError: too few calibration pictures or rows, or the fit does not say which
            picture each row of the bank came from.
        DataError: no picture can be judged.
        ImageReadError: a picture cannot be read.
    """
    own_rows = own_rows_of(fitted)
    check_external(len(fitted.memory_bank), fitted.detector.head.search.k, settings.score_name)
    notes: list[str] = []
    form = Form(fitted.detector)
    with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
        with steps.step("Making the float32 graph", 1):
            graph = form.external()
        with _open(graph, form, float32, Path(folder) / "float32.onnx") as reference:
            before = evaluate_labelled(reference, data, steps)
            trial = _Trial(reference, before, own_rows, fitted, settings, steps, data)
            if settings.precision == "fp16":
                forms = _half_forms(fitted.detector, notes)
            elif given is not None:
                notes.append(
                    f"{given.path.name} is there already and stays as it is: its ranges were found "
                    f"on {given.quantization.images} pictures of the class that was first"
                )
                forms = iter([Form(fitted.detector, "int8")])
            else:
                forms = iter(
                    [int8_form(fitted, settings, reference, own_rows, steps, on_sensitivity)]
                )
            for form in forms:
                found = trial.judge(form, given)
                if not found.gate.problems or form.bank == "fp32":
                    break
                notes.append(_bank_note("; ".join(found.gate.problems)))
    if not is_forced:
        foreign = foreign_pictures(found.pairs, float32.normal_scores)
        name = float32.class_name
        check_gate(found.gate, form.precision, name, has_choice=given is None, suspicion=foreign)
    notes += before.problems if before else ()
    return replace(_marked(found, is_forced), notes=tuple(notes))


@dataclass(frozen=True)
class _Trial:
    """What every form is judged against."""

    reference: MaskedModel
    before: Evaluation | None
    own_rows: OwnRows
    fitted: FittedModel
    settings: FitSettings
    steps: Steps
    data: Path | None

    def judge(self, form: Form, given: GivenGraph | None) -> Converted:
        """Make the graph of a form, compare it, and derive its threshold."""
        float32, steps = self.reference.manifest, self.steps
        graph, quantization = self._graph(form, given)
        manifest = _described(float32, form)
        path = self.reference.graph.with_name(f"{form.precision}-bank-{form.bank}.onnx")
        paths = evenly_spread(self.fitted.pictures.paths)
        with _open(graph, form, manifest, path) as model:
            if form.precision == "fp16":
                check_overflow(model, paths[0])
            with steps.step("Comparing with float32", len(paths)) as advance:
                models = self.reference, model
                pairs = compare(models, paths, self.own_rows, explain_overflow, advance)
            manifest = with_threshold(manifest, pairs, self.settings.false_alarm_rate)
            model.manifest = manifest
            after = evaluate_labelled(model, self.data, steps)
        labelled = Labelled(self.before, after) if self.before and after else None
        thresholds = float32.threshold, manifest.threshold
        found = gate(pairs, thresholds, labelled, LIMITS[form.precision])
        conversion = Conversion(quantization=quantization, gate=found)
        manifest = manifest.model_copy(update={"conversion": conversion})
        return Converted(form, graph, manifest, float32, pairs, found)

    def _graph(
        self, form: Form, given: GivenGraph | None
    ) -> tuple[onnx.ModelProto, Quantization | None]:
        if given is not None:
            return onnx.load(given.path), given.quantization
        with self.steps.step(f"Making the {form.precision} graph", 1):
            return form.external(), form.quantization


def with_threshold(manifest: Manifest, pairs: Pairs, false_alarm_rate: float) -> Manifest:
    """The manifest with its normal scores carried to the converted model's scale.

    Raises:
        DataError: as for :func:`patchline.calibration.threshold.threshold_of_fit`.
    """
    scores = carrying_line(*pairs.scores.T)
    normal = carry_over(manifest.normal_scores, scores, carrying_line(*pairs.map_maxima.T))
    threshold = threshold_of_fit(normal, false_alarm_rate)
    labelled = manifest.threshold.f1_max
    if labelled is not None:
        value = float(scores(np.array(labelled.value)))
        labelled = labelled.model_copy(update={"value": value})
    threshold = threshold.model_copy(update={"f1_max": labelled})
    return manifest.model_copy(update={"normal_scores": normal, "threshold": threshold})


def _half_forms(detector: Detector, notes: list[str]) -> Iterator[Form]:
    """With the bank in half precision; and with it in float32, where the gate refuses that."""
    try:
        yield Form(half_detector(detector, bank="fp16"), "fp16", "fp16")
    except ConfigurationError as error:  # rows too long for products in half precision
        notes.append(_bank_note(str(error)))
    yield Form(half_detector(detector, bank="fp32"), "fp16", "fp32")


def _described(float32: Manifest, form: Form) -> Manifest:
    bank = float32.memory_bank.model_copy(update={"precision": form.bank})
    changed = {"precision": form.precision, "memory_bank": bank, "parity": None, "onnx": None}
    return float32.model_copy(update=changed)


def _marked(found: Converted, is_forced: bool) -> Converted:
    """The same, and where it was forced past its problems, the manifest says so."""
    if not (is_forced and found.gate.problems):
        return found
    forced = found.gate.model_copy(update={"is_forced": True})
    conversion = found.manifest.conversion
    if conversion is None:
        raise ValueError("a converted model has a conversion")
    conversion = conversion.model_copy(update={"gate": forced})
    manifest = found.manifest.model_copy(update={"conversion": conversion})
    return replace(found, gate=forced, manifest=manifest)


def _bank_note(reason: str) -> str:
    return f"the memory bank stays in float32, because in half precision {reason}"


def _open(graph: onnx.ModelProto, form: Form, manifest: Manifest, path: Path) -> MaskedModel:
    save_onnx(graph, path)
    return MaskedModel(path, bank_tensors(form.detector.head), manifest)
