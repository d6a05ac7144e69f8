"""Fitted model -> a model in FP16 or INT8 that is let out: converted, compared, its threshold.

The order is: the float32 graph, the converted graph, the gate between the two, the threshold. Both
are graphs with an external bank, so that no good picture is judged by its own rows of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from patchline.export.config import FitSettings
from patchline.export.datasets import GoodPictures
from patchline.export.detector import Detector
from patchline.export.external_bank import check_external
from patchline.export.fit import FittedModel
from patchline.export.precision.converted import AnyJudged, Converted, GivenGraph, open_graph
from patchline.export.precision.evidence import (
    evaluate_labelled,
    foreign_pictures,
    own_rows_of,
)
from patchline.export.precision.form import Form
from patchline.export.precision.gate import check_gate
from patchline.export.precision.half import half_detector
from patchline.export.precision.int8_form import OnSensitivity, int8_form
from patchline.export.precision.trial import Trial
from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import Steps


def convert(
    fitted: FittedModel,
    float32: Manifest,
    settings: FitSettings,
    steps: Steps,
    *,
    data: Path | None = None,
    given: GivenGraph | None = None,
    beside: Sequence[GoodPictures] = (),
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
        beside: other classes that the INT8 graph is made for; its ranges cover them, too.
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
    with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
        form = Form(fitted.detector)
        with steps.step("Making the float32 graph", 1):
            graph = form.external()
        with open_graph(graph, form, float32, Path(folder) / "float32.onnx") as reference:
            before = evaluate_labelled(reference, data, steps)
            good = fitted.pictures.paths
            trial = Trial(reference, before, own_rows, good, settings, steps, data, fitted)
            if settings.precision == "fp16":
                found = _half(trial)
            elif given is not None:
                found = trial.judge(Form(fitted.detector, "int8"), given)
                found = replace(found, notes=(given.note,))
            else:
                found = trial.judge(int8_form(trial, beside, on_sensitivity), None)
    found = let_out(found, is_forced=is_forced, has_choice=given is None)
    return replace(found, notes=(*found.notes, *(before.problems if before else ())))


def _half(trial: Trial) -> Converted:
    """With the bank in half precision; and with it in float32, where the gate refuses that."""
    problems: list[str] = []
    for form in _half_forms(trial.fitted.detector, problems):
        found = trial.judge(form, None)
        if not found.gate.problems or form.bank == "fp32":
            break
        problems += found.gate.problems
    return found.with_float32_bank(problems) if problems else found


def _half_forms(detector: Detector, problems: list[str]) -> Iterator[Form]:
    try:
        yield Form(half_detector(detector, bank="fp16"), "fp16", "fp16")
    except ConfigurationError as error:  # rows too long for products in half precision
        problems.append(str(error))
    yield Form(half_detector(detector, bank="fp32"), "fp16", "fp32")


def let_out(found: AnyJudged, *, is_forced: bool, has_choice: bool = False) -> AnyJudged:
    """A conversion that passes the gate, or is forced past it.

    Args:
        found: the conversion.
        is_forced: whether it is let out in spite of the gate, which its manifest then says.
        has_choice: whether other ranges or layers left out may help.

    Raises:
        GateError: a limit is passed.
    """
    if is_forced:
        return found.forced()
    foreign = foreign_pictures(found.pairs, found.float32.normal_scores)
    name, precision = found.float32.class_name, found.manifest.precision
    check_gate(found.gate, precision, name, has_choice=has_choice, suspicion=foreign)
    return found
