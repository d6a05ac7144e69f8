"""One class of ``export-model`` from its pictures or its state to its files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.calibration.threshold import caveat
from patchline.export.config_train import DISTILLATION
from patchline.export.coreset_sharded import RunShards
from patchline.export.describe import describe
from patchline.export.exporter import export_model, leftovers
from patchline.export.external_files import given_graph, graph_path
from patchline.export.fit import FittedModel, fit
from patchline.export.making.conversion_report import conversion_warnings, show_sensitivity
from patchline.export.making.locks import graph_lock
from patchline.export.making.output import Output
from patchline.export.making.shared_graphs import chart_of, classes_beside
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.making.training_checks import (
    checkpoint_folder,
    checkpoint_mark,
    earlier_checkpoint,
    has_checkpoint,
    how_to_go_on,
    validation_of,
)
from patchline.export.precision.again import Job, fitted_again, lost_calibration
from patchline.export.precision.convert import convert
from patchline.export.precision.converted import Converted, Judged
from patchline.export.precision.evidence import data_of
from patchline.export.state import TrainingState
from patchline.export.tracking.base import Tracker
from patchline.runtime.cli.command import print_warning
from patchline.runtime.errors import ImageReadError
from patchline.runtime.progress import Steps

if TYPE_CHECKING:
    from patchline.export.distillation.convert import ConvertedDistilled
    from patchline.export.distillation.fit import DistilledModel
    from patchline.export.tracking.metrics_log import MetricsLog

_FIT_TIME = "time/fit_s"


@dataclass(frozen=True)
class Made:
    """Files of an exported class, and how it came about.

    Attributes:
        model: the ONNX file.
        bank: of the class, where it is no part of the model.
        converted: what is known of a model in another precision than float32.
        epochs: of its training; ``None`` where nothing was trained.
    """

    model: Path
    bank: Path | None = None
    converted: Judged | None = None
    epochs: int | None = None


def make_class(
    job: Job,
    output: Output,
    steps: TimedSteps,
    tracker: Tracker,
    *,
    jobs: Sequence[Job] = (),
    base: TrainingState | None = None,
    metrics: MetricsLog | None = None,
    run_shards: RunShards = map,
) -> Made:
    """Make and export one class, and warn of what a user should know of it.

    Args:
        job: how it comes about.
        output: where to.
        steps: shows progress.
        tracker: told of a training.
        jobs: all classes of the call.
        base: the model that its pictures are added to.
        metrics: told of the test pictures while it is trained; ``None``: they are left alone.
        run_shards: covers the shards of its coreset, as for :func:`patchline.export.fit.fit`.

    Raises:
        PatchlineError: as for :func:`patchline.export.cli.export_classes.export_class`.
    """
    if job.settings.method == DISTILLATION:
        return _train(job, output, steps, tracker, metrics)
    fitted = functools.partial(_fitted, job, steps, base, run_shards)
    return _fit(job, output, jobs, fitted, steps)


def _fit(
    job: Job,
    output: Output,
    jobs: Sequence[Job],
    make: Callable[[], FittedModel],
    steps: TimedSteps,
) -> Made:
    """Make and export a class with a memory bank."""
    with steps.timed(_FIT_TIME):
        fitted = make()
    with graph_lock(output.folder, job.settings):
        converted = _converted(fitted, job, output, jobs, steps)
        path = export_model(fitted, job.settings, output.folder, steps, converted, job.state)
    for warning in _warnings(job, fitted, converted, path):
        print_warning(warning)
    if job.settings.bank != "external":
        return Made(path, converted=converted)
    precision = converted.manifest.required_bank().precision if converted else None
    return Made(graph_path(output.folder, job.settings, precision), path, converted)


def _train(
    job: Job, output: Output, steps: TimedSteps, tracker: Tracker, metrics: MetricsLog | None
) -> Made:
    """Train and export a class without one."""
    from patchline.export.distillation.exporter import export_distilled
    from patchline.export.distillation.fit import fit_distillation

    name, folder = job.pictures.class_name, checkpoint_folder(output.folder, job)
    is_resumed = output.is_resumed and has_checkpoint(folder)
    if output.is_resumed and not is_resumed:  # one of several classes, interrupted before its turn
        print_warning(f"{name} has no checkpoint in {folder} and is trained from the start")
    if has_checkpoint(folder) and not is_resumed:
        print_warning(earlier_checkpoint(name, folder))
    earlier = checkpoint_mark(folder)
    try:
        with steps.timed(_FIT_TIME):
            fitted = fit_distillation(
                job.pictures,
                job.settings,
                steps,
                _warn_of_skipped,
                tracker=tracker,
                checkpoints=folder,
                resume=is_resumed,
                validate=validation_of(job, tracker, metrics),
            )
        converted = _half(fitted, job, output, steps)
        path = export_distilled(fitted, job.settings, output.folder, steps, converted)
    except KeyboardInterrupt:
        if has_checkpoint(folder):
            is_own = is_resumed or checkpoint_mark(folder) != earlier
            print_warning(how_to_go_on(name, folder, is_own=is_own))
        raise
    for warning in _warnings(job, fitted, converted, path):
        print_warning(warning)
    return Made(path, converted=converted, epochs=fitted.result.epochs)


def _half(
    fitted: DistilledModel, job: Job, output: Output, steps: Steps
) -> ConvertedDistilled | None:
    """A trained model in half precision, where that is asked for."""
    from patchline.export.distillation.convert import convert_distilled
    from patchline.export.distillation.describe import describe_distilled

    if job.settings.precision == "fp32":
        return None
    converted = convert_distilled(
        fitted,
        describe_distilled(fitted, job.settings, None),
        job.settings,
        steps,
        data=data_of(fitted.pictures),
        is_forced=output.is_forced,
    )
    for warning in conversion_warnings(converted):
        print_warning(warning)
    return converted


def _fitted(
    job: Job, steps: Steps, base: TrainingState | None, run_shards: RunShards
) -> FittedModel:
    if job.state is not None:
        return fitted_again(job, _warn_of_skipped)
    return fit(job.pictures, job.settings, steps, _warn_of_skipped, base, run_shards)


def _converted(
    fitted: FittedModel, job: Job, output: Output, jobs: Sequence[Job], steps: Steps
) -> Converted | None:
    """The model at the precision asked for, where that is another than it was fitted in."""
    settings, chart = job.settings, chart_of(job, jobs, output)
    if settings.precision == "fp32":
        return None
    float32, is_external = describe(fitted, settings, None), settings.bank == "external"
    given = given_graph(output.folder, settings, float32) if is_external else None
    converted = convert(
        fitted,
        float32,
        settings,
        steps,
        data=data_of(fitted.pictures),
        given=given,
        beside=() if given else classes_beside(job, jobs, output.folder),
        is_forced=output.is_forced,
        on_sensitivity=None if chart is None else functools.partial(show_sensitivity, chart),
    )
    for warning in conversion_warnings(converted):
        print_warning(warning)
    return converted


def _warnings(
    job: Job, fitted: FittedModel | DistilledModel, converted: Judged | None, path: Path
) -> Iterator[str]:
    """What a user should know of a model that was exported."""
    copies = len(fitted.picture_digests) - len(set(fitted.picture_digests))
    if copies:
        yield (
            f"{copies} of {len(fitted.picture_digests)} pictures are copies of others. A copy is "
            "judged by a model that has seen it, which lowers the threshold: remove them"
        )
    threshold = converted.manifest.threshold if converted else fitted.threshold
    for warning in (
        caveat(threshold, len(fitted.normal.scores)),
        lost_calibration(job.deployed),
    ):
        if warning is not None:
            yield warning
    old = leftovers(path)
    if old:
        yield (
            f"{', '.join(map(str, old))}: of an earlier export of {job.pictures.class_name}, and "
            "left as it was. Remove it if nothing uses it any more"
        )


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")
