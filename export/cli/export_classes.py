"""What ``export-model`` does for each class: fit it or make it again, convert, export, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchline.export.cli.export_report import print_export
from patchline.export.cli.tracking_options import open_tracker
from patchline.export.config import make_settings
from patchline.export.config_train import DISTILLATION
from patchline.export.datasets import GoodPictures
from patchline.export.exporter import check_target
from patchline.export.external_files import graph_path
from patchline.export.fleet.recorded import Report, make_recorded
from patchline.export.making.locks import class_lock
from patchline.export.making.output import Output
from patchline.export.making.shared_graphs import check_conversions
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.making.training_checks import check_state
from patchline.export.precision.again import Job, plan_job
from patchline.export.state import TrainingState
from patchline.runtime.cli.command import stderr_console
from patchline.runtime.contract import Manifest
from patchline.runtime.progress import ConsoleSteps

if TYPE_CHECKING:
    from patchline.export.evaluation.result import Metrics
    from patchline.export.tracking.base import Tracker
    from patchline.export.tracking.metrics_log import MetricsLog


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
    check_state(fields, state)
    is_trained = fields.get("method") == DISTILLATION
    if is_trained or (state is None and "precision" not in fields):
        settings = make_settings(fields, config)
        return [Job(pictures, settings) for pictures in selected]
    return [
        plan_job(pictures, fields, config, state or out, must_reuse=state is not None)
        for pictures in selected
    ]


def export_classes(jobs: Sequence[Job], output: Output) -> None:
    """Export one class after the other until one fails; what can be refused before it is.

    Raises:
        PatchlineError: as for :func:`export_class`.
    """
    for job in jobs:
        check_target(output.folder, job.pictures.class_name, job.settings)
    check_conversions(jobs, output)
    metrics: dict[str, Metrics] = {}
    for job in jobs:
        export_class(job, output, jobs, None, metrics)


def export_class(
    job: Job,
    output: Output,
    jobs: Sequence[Job] = (),
    base: TrainingState | None = None,
    metrics: dict[str, Metrics] | None = None,
) -> Report:
    """Make, export and report one class.

    Args:
        job: how it comes about.
        output: where to, and who is told.
        jobs: all classes of the call; an INT8 graph is made for those of them that share it.
        base: the model that its pictures are added to.
        metrics: of the classes of the call by name, where they are tracked; gets its own.

    Returns:
        What was made.

    Raises:
        ConfigurationError: another process makes the class.
        PatchlineError: as for :func:`patchline.export.fit.fit`,
            :func:`patchline.export.precision.convert.convert` and
            :func:`patchline.export.exporter.export_model`, or for
            :func:`patchline.export.distillation.fit.fit_distillation` and
            :func:`patchline.export.distillation.exporter.export_distilled`.
    """
    announce(job)
    with (
        class_lock(output.folder, job.pictures.class_name),
        open_tracker(job, output, jobs) as tracker,
    ):
        steps = TimedSteps(ConsoleSteps(stderr_console()))
        log = None if output.track is None else _metrics_log(tracker, job, metrics)
        report = make_recorded(job, output, steps, tracker, jobs=jobs, base=base, metrics=log)
        made, seconds = report.made, report.seconds
        print_export(report.path, report.graph, seconds, output.as_json, made.converted)
        if log is not None:
            from patchline.export.cli.tracked_results import track_results

            steps.times["time/whole_s"] = seconds
            track_results(tracker, job, made, log, steps)
    return report


def announce(job: Job) -> None:
    """Say which class it is, and what there is to say of how it comes about."""
    console, pictures = stderr_console(), job.pictures
    console.print(f"{pictures.class_name}: {len(pictures.paths)} good pictures", markup=False)
    if job.note:
        console.print(f"{pictures.class_name}: {job.note}", markup=False, soft_wrap=True)


def shared_graph(folder: Path, job: Job, manifest: Manifest) -> Path:
    """The graph that the bank of an exported class is for.

    Args:
        folder: of the models.
        job: how the class came about.
        manifest: of its bank.
    """
    return graph_path(folder, job.settings, manifest.required_bank().precision)


def _metrics_log(tracker: Tracker, job: Job, metrics: dict[str, Metrics] | None) -> MetricsLog:
    from patchline.export.tracking.metrics_log import MetricsLog

    return MetricsLog(tracker, job.pictures.class_name, {} if metrics is None else metrics)
