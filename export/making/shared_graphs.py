"""Which classes of one call of ``export-model`` share an INT8 graph, and what comes of it.

One that is there already takes no options; one that is to be made needs a calibration picture of
each class, and has one chart of what INT8 costs in its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchline.export.datasets import GoodPictures
from patchline.export.external_files import graph_path
from patchline.export.making.conversion_options import ignored_options
from patchline.export.making.output import Output
from patchline.export.precision.again import Job, readable
from patchline.export.precision.calibration_pictures import check_enough
from patchline.export.precision.layer_names import check_layer_names
from patchline.export.precision.sensitivity_report import check_chart
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import check_writable


@dataclass(frozen=True)
class Chart:
    """Where what INT8 costs in each layer is drawn.

    Attributes:
        path: of the chart.
        whose: the class that it is measured on, and the graph's others.
    """

    path: Path
    whose: str


def check_conversions(jobs: Sequence[Job], output: Output) -> None:
    """Refuse, before the first fit, what can be known to fail or to do nothing in INT8.

    Args:
        jobs: all classes of the call.
        output: where to, and the options that were given.

    Raises:
        ConfigurationError: options for a graph that is there already; fewer calibration pictures
            than classes that share a graph; no such layer; or a chart of another ending.
        MissingExtraError: a chart is asked for, and matplotlib is not installed.
        WriteError: the chart's folder cannot be written to.
    """
    if output.sensitivity is not None:
        check_chart(output.sensitivity)
        check_writable(output.sensitivity.parent)
    for job in jobs:
        graph, settings = _graph(job, output.folder), job.settings
        if graph is not None and graph.exists():
            if output.int8_options:
                raise ConfigurationError(ignored_options(graph, output.int8_options))
        elif settings.precision == "int8":
            sharing = len(_sharing(job, jobs, output.folder)) + 1
            check_enough(sharing, settings.calibration_images)
            check_layer_names(settings.backbone, settings.float_layers)


def classes_beside(job: Job, jobs: Sequence[Job], out: Path) -> tuple[GoodPictures, ...]:
    """The other classes of the call that share the INT8 graph of a class; often none.

    Pictures that cannot be read are not among theirs where the settings leave such out; they are
    named when it is their class's turn.

    Args:
        job: the class.
        jobs: all classes of the call.
        out: folder of the models.
    """
    return tuple(readable(other.pictures, other.settings) for other in _sharing(job, jobs, out))


def chart_of(job: Job, jobs: Sequence[Job], output: Output) -> Chart | None:
    """The chart of a class: a file of its own where the call makes several; ``None`` without.

    Args:
        job: the class.
        jobs: all classes of the call.
        output: says where the chart was asked for.
    """
    if output.sensitivity is None:
        return None
    path, name = output.sensitivity, job.pictures.class_name
    graphs = [_graph(other, output.folder) for other in jobs]
    if graphs.count(None) + len({graph for graph in graphs if graph}) > 1:
        path = path.with_name(f"{path.stem}-{name}{path.suffix}")
    others = [other.pictures.class_name for other in _sharing(job, jobs, output.folder)]
    whose = f"{name}, for one graph with {', '.join(others)}" if others else name
    return Chart(path, whose)


def _sharing(job: Job, jobs: Sequence[Job], out: Path) -> list[Job]:
    """The other classes with the same INT8 graph."""
    graph = _graph(job, out)
    if graph is None:
        return []
    return [other for other in jobs if other is not job and _graph(other, out) == graph]


def _graph(job: Job, out: Path) -> Path | None:
    """Where the INT8 graph lies that a class takes its bank to."""
    settings = job.settings
    is_shared = settings.bank == "external" and settings.precision == "int8"
    return graph_path(out, settings) if is_shared else None
