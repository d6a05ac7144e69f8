"""One form of a model beside the float32 one: its graph, the comparison, its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from patchline.export.config import FitSettings
from patchline.export.evaluation.result import Evaluation
from patchline.export.fit import FittedModel
from patchline.export.precision.compare import OwnRows, Pairs, compare, evenly_spread
from patchline.export.precision.converted import Converted, GivenGraph, Judged, open_graph
from patchline.export.precision.evidence import (
    check_overflow,
    evaluate_labelled,
    explain_overflow,
)
from patchline.export.precision.form import Form
from patchline.export.precision.gate import LIMITS, Labelled, gate
from patchline.export.precision.masked import MaskedModel
from patchline.export.precision.threshold import with_threshold
from patchline.runtime.contract import Conversion, Manifest, Quantization
from patchline.runtime.progress import Steps


@dataclass(frozen=True)
class Reference:
    """What a converted model is judged against.

    Attributes:
        reference: the float32 graph with its bank.
        before: what it says of labelled pictures, where there are any.
        own_rows: of each picture.
        good: good pictures that are compared, or more than enough of them.
        settings: hold the false-alarm rate.
        steps: shows progress.
        data: folder of class folders in which the class may have labelled pictures.
    """

    reference: MaskedModel
    before: Evaluation | None
    own_rows: OwnRows
    good: tuple[Path, ...]
    settings: FitSettings
    steps: Steps
    data: Path | None

    def judge_model(self, model: MaskedModel, quantization: Quantization | None) -> Judged:
        """Compare a model, and derive its threshold.

        Args:
            model: converted, under the float32 model's threshold.
            quantization: how, where it is in INT8.

        Raises:
            GateError: the model gives NaN or infinity.
            DataError: no picture can be judged.
            ImageReadError: a picture cannot be read.
        """
        float32, pairs = self.reference.manifest, self._compare(model)
        manifest = with_threshold(model.manifest, pairs, self.settings.false_alarm_rate)
        model.manifest = manifest
        after = evaluate_labelled(model, self.data, self.steps)
        labelled = Labelled(self.before, after) if self.before and after else None
        thresholds = float32.threshold, manifest.threshold
        found = gate(pairs, thresholds, labelled, LIMITS[manifest.precision])
        conversion = Conversion(quantization=quantization, gate=found)
        manifest = manifest.model_copy(update={"conversion": conversion})
        return Judged(manifest, float32, pairs, found)

    def _compare(self, model: MaskedModel) -> Pairs:
        paths = evenly_spread(self.good)
        if model.manifest.precision == "fp16":
            check_overflow(model, paths[0])
        with self.steps.step("Comparing with float32", len(paths)) as advance:
            models = self.reference, model
            return compare(models, paths, self.own_rows, explain_overflow, advance)


@dataclass(frozen=True)
class Trial(Reference):
    """What every form of a model with a memory bank is judged against.

    Attributes:
        fitted: the float32 model.
    """

    fitted: FittedModel

    def judge(self, form: Form, given: GivenGraph | None) -> Converted:
        """Make the graph of a form, compare it, and derive its threshold.

        Args:
            form: in half precision or INT8.
            given: an INT8 graph that is taken as it is.

        Raises:
            GateError: the model gives NaN or infinity.
            DataError: no picture can be judged.
            ImageReadError: a picture cannot be read.
        """
        graph, quantization = self._graph(form, given)
        manifest = _described(self.reference.manifest, form)
        path = self.reference.graph.with_name(f"{form.precision}-bank-{form.bank}.onnx")
        with open_graph(graph, form, manifest, path) as model:
            judged = self.judge_model(model, quantization)
        return Converted(**vars(judged), form=form, graph=graph)

    def _graph(
        self, form: Form, given: GivenGraph | None
    ) -> tuple[onnx.ModelProto, Quantization | None]:
        if given is not None:
            return onnx.load(given.path), given.quantization
        with self.steps.step(f"Making the {form.precision} graph", 1):
            return form.external(), form.quantization


def _described(float32: Manifest, form: Form) -> Manifest:
    bank = float32.required_bank().model_copy(update={"precision": form.bank})
    changed = {"precision": form.precision, "memory_bank": bank, "parity": None, "onnx": None}
    return float32.model_copy(update=changed)
