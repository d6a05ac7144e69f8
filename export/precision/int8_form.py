"""A fitted model with an INT8 backbone: its ranges, and the layers that stay in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from patchline.calibration.ranges import Ranges, cache_folder
from patchline.export.config import FitSettings
from patchline.export.fit import FittedModel
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.compare import OwnRows, evenly_spread
from patchline.export.precision.form import Form
from patchline.export.precision.int8 import resolve_layers
from patchline.export.precision.layers import layers
from patchline.export.precision.masked import MaskedModel
from patchline.export.precision.sensitivity import (
    AUTO,
    Feeds,
    LayerSensitivity,
    failing_layers,
    sensitivity,
)
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess
from patchline.runtime.progress import Steps

SENSITIVITY_PICTURES = 8
"""The embeddings of so many pictures are 8,192 patches at 256 px."""

OnSensitivity = Callable[[Sequence[LayerSensitivity]], None]


def int8_form(
    fitted: FittedModel,
    settings: FitSettings,
    reference: MaskedModel,
    own_rows: OwnRows,
    steps: Steps,
    on_sensitivity: OnSensitivity | None = None,
) -> Form:
    """Find the ranges, and where ``auto`` is among the float layers those that fail.

    Args:
        fitted: the float32 model.
        settings: hold how to calibrate.
        reference: the float32 graph with its bank.
        own_rows: of each picture.
        steps: shows progress.
        on_sensitivity: told what each layer costs, the worst first; the pass is made for it, or
            for ``auto``.

    Raises:
        ConfigurationError: too few pictures, or no such layer.
        ImageReadError: a picture cannot be read.
        DataError: an activation is NaN or infinite, or all pictures score 0.
    """
    ranges = _ranges(fitted, settings, reference.graph, steps)
    named = [name for name in settings.float_layers if name != AUTO]
    graph = onnx.load(reference.graph)
    if on_sensitivity is not None or AUTO in settings.float_layers:
        rows = _sensitivity(fitted, graph, ranges, reference, own_rows, steps)
        if on_sensitivity is not None:
            on_sensitivity(rows)
        if AUTO in settings.float_layers:
            named += failing_layers(rows)
    return Form(fitted.detector, "int8", "fp32", ranges, resolve_layers(graph, named))


def _ranges(fitted: FittedModel, settings: FitSettings, graph: Path, steps: Steps) -> Ranges:
    pictures = fitted.pictures.paths
    with steps.step("Calibrating", min(settings.calibration_images, len(pictures))) as advance:
        return find_ranges(
            graph,
            pictures,
            settings.model_size,
            settings.calibration_method,
            images=settings.calibration_images,
            cache=cache_folder(),
            advance=advance,
        )


def _sensitivity(
    fitted: FittedModel,
    graph: onnx.ModelProto,
    ranges: Ranges,
    reference: MaskedModel,
    own_rows: OwnRows,
    steps: Steps,
) -> list[LayerSensitivity]:
    cases: list[Feeds] = []
    for path in evenly_spread(fitted.pictures.paths, SENSITIVITY_PICTURES):
        frame = preprocess(read_image(path), reference.manifest.model_size)[None]
        cases.append(reference.feeds(frame, own_rows(path)))
    with steps.step("Trying each layer alone", len(layers(graph))) as advance:
        return sensitivity(graph, ranges, cases, advance=advance)
