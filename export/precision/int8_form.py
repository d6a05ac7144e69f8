"""A fitted model with an INT8 backbone: its ranges, and the layers that stay in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from patchline.calibration.ranges import Ranges, cache_folder
from patchline.export.datasets import GoodPictures
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.calibration_pictures import calibration_pictures
from patchline.export.precision.compare import evenly_spread
from patchline.export.precision.form import Form
from patchline.export.precision.int8 import resolve_layers
from patchline.export.precision.layers import layers
from patchline.export.precision.sensitivity import (
    AUTO,
    Feeds,
    LayerSensitivity,
    failing_layers,
    sensitivity,
)
from patchline.export.precision.trial import Trial
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess

SENSITIVITY_PICTURES = 8
"""The embeddings of so many pictures are 8,192 patches at 256 px."""

OnSensitivity = Callable[[Sequence[LayerSensitivity]], None]


def int8_form(
    trial: Trial,
    beside: Sequence[GoodPictures] = (),
    on_sensitivity: OnSensitivity | None = None,
) -> Form:
    """Find the ranges, and where ``auto`` is among the float layers those that fail.

    Args:
        trial: the float32 model, its graph, and the settings that say how to calibrate.
        beside: other classes that the graph is made for; the ranges are found on their pictures,
            too. What a layer costs is measured on the model's own.
        on_sensitivity: told what each layer costs, the worst first; the pass is made for it, or
            for ``auto``.

    Raises:
        ConfigurationError: too few pictures, or no such layer.
        ImageReadError: a picture cannot be read.
        DataError: an activation is NaN or infinite, or all pictures score 0.
    """
    classes, settings = [trial.fitted.pictures, *beside], trial.settings
    ranges = _ranges(trial, classes)
    named = [name for name in settings.float_layers if name != AUTO]
    graph = onnx.load(trial.reference.graph)
    if on_sensitivity is not None or AUTO in settings.float_layers:
        rows = _sensitivity(trial, graph, ranges)
        if on_sensitivity is not None:
            on_sensitivity(rows)
        if AUTO in settings.float_layers:
            named += failing_layers(rows)
    kept = resolve_layers(graph, named)
    names = tuple(sorted(one.class_name for one in classes))
    return Form(trial.fitted.detector, "int8", "fp32", ranges, kept, names)


def _ranges(trial: Trial, classes: Sequence[GoodPictures]) -> Ranges:
    settings = trial.settings
    pictures = calibration_pictures(classes, settings.calibration_images)
    with trial.steps.step("Calibrating", len(pictures)) as advance:
        return find_ranges(
            trial.reference.graph,
            pictures,
            settings.model_size,
            settings.calibration_method,
            images=len(pictures),
            cache=cache_folder(),
            advance=advance,
        )


def _sensitivity(trial: Trial, graph: onnx.ModelProto, ranges: Ranges) -> list[LayerSensitivity]:
    cases: list[Feeds] = []
    reference = trial.reference
    for path in evenly_spread(trial.fitted.pictures.paths, SENSITIVITY_PICTURES):
        frame = preprocess(read_image(path), reference.manifest.model_size)[None]
        cases.append(reference.feeds(frame, trial.own_rows(path)))
    with trial.steps.step("Trying each layer alone", len(layers(graph))) as advance:
        return sensitivity(graph, ranges, cases, advance=advance)
