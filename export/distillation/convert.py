"""Distilled model -> the same in FP16, let out if it judges as before (see docs/precision.md).

Both graphs judge pictures that the model was not trained on: those kept out for the threshold, and
labelled ones where there are any.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from patchline.export.config import FitSettings
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.half import half_distilled
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.precision.convert import let_out
from patchline.export.precision.converted import Judged
from patchline.export.precision.evidence import evaluate_labelled
from patchline.export.precision.masked import MaskedModel, Rows
from patchline.export.precision.trial import Reference
from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import Steps


@dataclass(frozen=True)
class ConvertedDistilled(Judged):
    """A distilled model in half precision that passed the gate, or was forced through it.

    Attributes:
        detector: what it computes.
        graph: its graph, which was judged.
    """

    detector: DistilledDetector
    graph: onnx.ModelProto


def convert_distilled(
    fitted: DistilledModel,
    float32: Manifest,
    settings: FitSettings,
    steps: Steps,
    *,
    data: Path | None = None,
    is_forced: bool = False,
) -> ConvertedDistilled:
    """Convert a distilled model and find out whether it judges as before.

    Args:
        fitted: the float32 model.
        float32: its manifest.
        settings: of precision ``fp16``.
        steps: shows progress.
        data: folder of class folders in which the class may have labelled pictures.
        is_forced: whether to give the model in spite of the gate.

    Raises:
        ConfigurationError: another precision.
        GateError: a limit is passed, or the model gives NaN or infinity.
        ImageReadError: a picture cannot be read.
    """
    if settings.precision != "fp16":
        raise ConfigurationError(
            f"precision is {settings.precision!r}, and a model of {settings.method} can be had in "
            "fp32 or fp16"
        )
    half = half_distilled(fitted.detector)
    described = float32.model_copy(update={"precision": "fp16", "parity": None, "onnx": None})
    with tempfile.TemporaryDirectory(prefix="patchline-") as name:
        folder = Path(name)
        with steps.step("Making both graphs", 2) as advance:
            graphs = [to_onnx(fitted.detector, settings.model_size)]
            advance(1)
            graphs.append(to_onnx(half, settings.model_size))
            advance(2)
        reference = _opened(graphs[0], float32, folder / "float32.onnx")
        model = _opened(graphs[1], described, folder / "fp16.onnx")
        with reference, model:
            before = evaluate_labelled(reference, data, steps)
            against = Reference(reference, before, _no_rows, fitted.held_out, settings, steps, data)
            judged = against.judge_model(model, None)
    found = ConvertedDistilled(**vars(judged), detector=half, graph=graphs[1])
    return let_out(found, is_forced=is_forced)


def _opened(graph: onnx.ModelProto, manifest: Manifest, path: Path) -> MaskedModel:
    save_onnx(graph, path)
    return MaskedModel(path, {}, manifest)


def _no_rows(path: Path) -> Rows:
    """A distilled model has no memory bank, and was not trained on the pictures compared."""
    return np.zeros(0, np.bool_)
