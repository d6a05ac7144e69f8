"""``export-model --ray``: nodes looked at, classes sent, their reports printed (issue 9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.export.cli.export_classes import announce
from patchline.export.cli.export_options import RayOptions
from patchline.export.cli.export_report import print_export
from patchline.export.fleet.needs import misfit, needs_of
from patchline.export.fleet.on_ray import RayFleet
from patchline.export.fleet.orders import Ended, Order, sharing
from patchline.export.fleet.portable import (
    device_on_ray,
    portable_job,
    portable_output,
    weights_file,
)
from patchline.export.fleet.progress import FleetProgress
from patchline.export.fleet.ray_task import Task
from patchline.export.fleet.recorded import light
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.runtime.cli.command import print_warning, stderr_console
from patchline.runtime.cluster.connect import Node, connected
from patchline.runtime.cluster.nodes import check_nodes
from patchline.runtime.errors import PatchlineError

if TYPE_CHECKING:
    from patchline.export.cli.export_fleet import Ledger

_MODULES = ("torch", "timm", "onnx", "onnxruntime", "numpy", "cv2")
"""Modules whose version has a part in the numbers."""


def export_on_ray(jobs: Sequence[Job], output: Output, options: RayOptions, ledger: Ledger) -> None:
    """Make classes on a cluster.

    Args:
        jobs: at least one class.
        output: where to.
        options: the cluster, and what a class gets of it.
        ledger: told what becomes of each.

    Raises:
        ConfigurationError: options that contradict each other.
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster does not answer, or one of its nodes does not fit.
        KeyboardInterrupt: as it came; what ran is called off.
    """
    shared = portable_output(output)
    device, gpus = device_on_ray(jobs[0].settings.device, options.gpus)
    with connected(options.address) as cluster:
        nodes = check_nodes(
            cluster, paths=_paths(jobs, output), out=shared.folder, modules=_MODULES
        )
        sent = [portable_job(job, device) for job in jobs]
        pairs = zip(jobs, sent, strict=True)
        orders = [
            order
            for job, there in pairs
            for order in _ordered(job, there, sent, shared, (options.cpus, gpus), nodes, ledger)
        ]
        progress = FleetProgress(stderr_console(), len(orders))
        fleet = RayFleet(cluster, shared.folder, tell=print_warning, show=progress.running)
        with progress.shown():
            for ended in fleet.make(orders):
                _report(ended, output, ledger)
                progress.ended(is_failed=ended.done is None or ended.done.error is not None)


def _paths(jobs: Sequence[Job], output: Output) -> list[Path]:
    """What every node must see: the data's folders, the weights and the states."""
    folders = {job.pictures.folder.absolute() for job in jobs}
    weights = {found for job in jobs if (found := weights_file(job)) is not None}
    states = set() if output.state is None else {output.state.absolute()}
    return sorted(folders | weights | states)


def _ordered(
    job: Job,
    there: Job,
    sent: Sequence[Job],
    shared: Output,
    share: tuple[int, float],
    nodes: Sequence[Node],
    ledger: Ledger,
) -> Iterator[Order]:
    """One class as it is sent; none where it is known to fail."""
    try:
        needs = needs_of(there, *share)
    except PatchlineError as error:
        ledger.fail(job.pictures.class_name, error)
        return
    problem = misfit(needs, nodes)
    if problem is not None:
        ledger.fail(job.pictures.class_name, problem)
        return
    beside = sharing(there, sent, shared)
    yield Order(job, Task(there, shared, beside, share[0], Path()), needs)


def _report(ended: Ended, output: Output, ledger: Ledger) -> None:
    name, done = ended.order.job.pictures.class_name, ended.done
    announce(ended.order.job)
    if done is None:
        ledger.fail(name, ended.error, ended.node)
        return
    for warning in done.warnings:
        print_warning(f"{name}: {warning}")
    if done.report is None:
        if done.trace:
            stderr_console().print(done.trace, markup=False, soft_wrap=True)
        ledger.fail(name, done.error or "", done.node)
        return
    report, made = done.report, light(done.report.made, output.folder)
    path, graph = made.bank or made.model, made.model if made.bank else None
    print_export(path, graph, report.seconds, output.as_json, made.converted)
    ledger.done(report, done.node)
