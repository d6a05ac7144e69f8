"""What ``export-model`` does for each class: fit it or make it again, convert, export, report."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patchline.calibration.threshold import caveat
from patchline.export.cli.conversion_report import conversion_warnings, show_sensitivity
from patchline.export.cli.export_options import Output
from patchline.export.cli.export_report import print_export
from patchline.export.cli.shared_graphs import chart_of, check_conversions, classes_beside
from patchline.export.config import make_settings
from patchline.export.datasets import GoodPictures
from patchline.export.describe import describe
from patchline.export.exporter import check_target, export_model, leftovers
from patchline.export.external_files import given_graph, graph_path
from patchline.export.fit import FittedModel, fit
from patchline.export.precision.again import Job, fitted_again, lost_calibration, plan_job
from patchline.export.precision.convert import convert
from patchline.export.precision.converted import Converted
from patchline.export.precision.evidence import data_of
from patchline.export.state import TrainingState
from patchline.runtime.cli.command import print_warning, stderr_console
from patchline.runtime.errors import ImageReadError
from patchline.runtime.progress import ConsoleSteps, Steps


def plan_jobs(
    selected: Sequence[GoodPictures],
    fields: dict[str, Any],
    config: Path | None,
    state: Path | None,
    out: Path,
) -> list[Job]:
    """How each class comes about: fitted, or made again from its state where that is asked for.

    Raises:
        ConfigurationError: a field that cannot be; or as for
            :func:`patchline.export.precision.again.plan_job`.
        ModelError: likewise.
    """
    if state is None and "precision" not in fields:
        settings = make_settings(fields, config)
        return [Job(pictures, settings) for pictures in selected]
    return [
        plan_job(pictures, fields, config, state or out, must_reuse=state is not None)
        for pictures in selected
    ]


def export_classes(jobs: Sequence[Job], output: Output) -> None:
    """Export one class after the other; what can be refused before the first fit is.

    Raises:
        PatchlineError: as for :func:`export_class`.
    """
    for job in jobs:
        check_target(output.folder, job.pictures.class_name, job.settings)
    check_conversions(jobs, output)
    for job in jobs:
        export_class(job, output, jobs)


def export_class(
    job: Job, output: Output, jobs: Sequence[Job] = (), base: TrainingState | None = None
) -> None:
    """Make, export and report one class.

    Args:
        job: how it comes about.
        output: where to.
        jobs: all classes of the call; an INT8 graph is made for those of them that share it.
        base: the model that its pictures are added to.

    Raises:
        PatchlineError: as for :func:`patchline.export.fit.fit`,
            :func:`patchline.export.precision.convert.convert` and
            :func:`patchline.export.exporter.export_model`.
    """
    _announce(job)
    steps, started = ConsoleSteps(stderr_console()), time.monotonic()
    fitted = _fitted(job, steps, base)
    converted = _converted(fitted, job, output, jobs, steps)
    path = export_model(fitted, job.settings, output.folder, steps, converted, job.state)
    for warning in _warnings(job, fitted, converted, path):
        print_warning(warning)
    graph = None
    if job.settings.bank == "external":
        bank = converted.manifest.memory_bank.precision if converted else None
        graph = graph_path(output.folder, job.settings, bank)
    print_export(path, graph, time.monotonic() - started, output.as_json, converted)


def _announce(job: Job) -> None:
    console, pictures = stderr_console(), job.pictures
    console.print(f"{pictures.class_name}: {len(pictures.paths)} good pictures", markup=False)
    if job.note:
        console.print(f"{pictures.class_name}: {job.note}", markup=False, soft_wrap=True)


def _fitted(job: Job, steps: Steps, base: TrainingState | None) -> FittedModel:
    if job.state is not None:
        return fitted_again(job, _warn_of_skipped)
    return fit(job.pictures, job.settings, steps, _warn_of_skipped, base)


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
    job: Job, fitted: FittedModel, converted: Converted | None, path: Path
) -> Iterator[str]:
    """What a user should know of a model that was exported."""
    copies = len(fitted.picture_digests) - len(set(fitted.picture_digests))
    if copies:
        yield (
            f"{copies} of {len(fitted.picture_digests)} pictures are copies of others. A copy is "
            "judged by a bank that has seen it, which lowers the threshold: remove them"
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
