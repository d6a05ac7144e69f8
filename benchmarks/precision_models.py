"""One class in FP32, FP16 and INT8 for :mod:`patchline.benchmarks.precision`.

It is fitted once and converted from its state as ``export-model --precision --force`` does, so that
a model that the gate refuses is there, too, with what it was refused for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.calibration.threshold import normal_scores, threshold_of_fit
from patchline.export.config import FitSettings, make_settings
from patchline.export.cross_fit import HeadSettings, cross_fit
from patchline.export.datasets import GoodPictures
from patchline.export.describe import describe
from patchline.export.exporter import export_model
from patchline.export.features import extract_features
from patchline.export.fit import FittedModel, fit
from patchline.export.making.conversion_report import conversion_warnings
from patchline.export.precision.again import fitted_again, plan_job
from patchline.export.precision.convert import convert
from patchline.export.precision.converted import Converted
from patchline.export.precision.half import half_detector
from patchline.runtime.cli.command import print_warning
from patchline.runtime.contract import Precision, Threshold
from patchline.runtime.errors import ImageReadError
from patchline.runtime.progress import Steps

FLOAT32: Precision = "fp32"
CONVERTED: tuple[Precision, ...] = ("fp16", "int8")


@dataclass(frozen=True)
class Models:
    """The files of one class.

    Attributes:
        fitted: the float32 model.
        settings: it was fitted with.
        paths: the ONNX file in each precision, float32 first.
        converted: what is known of the others.
    """

    fitted: FittedModel
    settings: FitSettings
    paths: dict[Precision, Path]
    converted: dict[Precision, Converted]


def export_all(
    pictures: GoodPictures, fields: dict[str, Any], data: Path, folder: Path, steps: Steps
) -> Models:
    """Fit a class and export it in every precision.

    Args:
        pictures: its good pictures.
        fields: fields of :class:`FitSettings`, without ``precision``.
        data: folder of class folders with the labelled pictures that the gate looks at.
        folder: for the files; each precision has its own folder in there.
        steps: shows progress.

    Raises:
        PatchlineError: as ``export-model --force``.
    """
    settings = make_settings(fields)
    fitted = fit(pictures, settings, steps, _warn_of_skipped)
    paths = {FLOAT32: export_model(fitted, settings, folder / FLOAT32, steps)}
    converted = {}
    for precision in CONVERTED:
        found = _convert(pictures, fields | {"precision": precision}, data, folder, steps)
        paths[precision], converted[precision] = found
    return Models(fitted, settings, paths, converted)


def direct_threshold(models: Models, steps: Steps) -> Threshold:
    """The threshold of a half-precision backbone by a cross-fit of its own embeddings.

    It is what the threshold that was carried over stands for: five banks are chosen anew from half
    embeddings. They are searched in float32, and the frozen statistics of the distances stay.

    Raises:
        PatchlineError: as for a fit.
    """
    fitted, settings = models.fitted, models.settings
    embedder = half_detector(fitted.detector, bank="fp32").embedder
    paths = fitted.pictures.paths
    with steps.step("Embedding in half precision", len(paths)) as advance:
        features = extract_features(
            paths,
            embedder,
            batch_size=settings.batch_size,
            seed=settings.seed,
            spill=fitted.memory.spill,
            advance=advance,
        )
    try:
        heads = _heads(fitted, settings)
        held_out = cross_fit(features, heads, steps, statistics=fitted.statistics)
    finally:
        features.rows.close()
    normal = normal_scores(held_out.image_scores, held_out.map_maxima, "cross-fit")
    return threshold_of_fit(normal, settings.false_alarm_rate)


def _convert(
    pictures: GoodPictures, fields: dict[str, Any], data: Path, folder: Path, steps: Steps
) -> tuple[Path, Converted]:
    job = plan_job(pictures, fields, None, folder / FLOAT32, must_reuse=True)
    fitted = fitted_again(job, _warn_of_skipped)
    float32 = describe(fitted, job.settings, None)
    converted = convert(fitted, float32, job.settings, steps, data=data, is_forced=True)
    precision = converted.manifest.precision
    for warning in conversion_warnings(converted):
        print_warning(f"{pictures.class_name} in {precision}: {warning}")
    out = folder / precision
    return export_model(fitted, job.settings, out, steps, converted, job.state), converted


def _heads(fitted: FittedModel, settings: FitSettings) -> HeadSettings:
    head, embedder = fitted.detector.head, fitted.detector.embedder
    return HeadSettings(
        grid=embedder.grid,
        size=embedder.size,
        score=settings.score_name,
        neighbors=head.search.k,
        coreset_ratio=settings.coreset_ratio,
        seed=settings.seed,
        device=next(embedder.network.parameters()).device,
    )


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")
