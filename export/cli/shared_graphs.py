"""Which classes of one call of ``export-model`` share an INT8 graph that is still to be made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchline.export.datasets import GoodPictures
from patchline.export.external_files import graph_path
from patchline.export.precision.again import Job, readable
from patchline.export.precision.calibration_pictures import check_enough


def check_calibration_images(jobs: Sequence[Job], out: Path) -> None:
    """Refuse, before the first fit, fewer calibration pictures than classes that share a graph.

    Args:
        jobs: all classes of the call.
        out: folder of the models; a graph that is there already is not calibrated again.

    Raises:
        ConfigurationError: there are too few.
    """
    for job in jobs:
        graph = _graph(job, out)
        if graph is not None and not graph.exists():
            sharing = sum(_graph(other, out) == graph for other in jobs)
            check_enough(sharing, job.settings.calibration_images)


def classes_beside(job: Job, jobs: Sequence[Job], out: Path) -> tuple[GoodPictures, ...]:
    """The other classes of the call that share the INT8 graph of a class; often none.

    Pictures that cannot be read are not among theirs where the settings leave such out; they are
    named when it is their class's turn.

    Args:
        job: the class.
        jobs: all classes of the call.
        out: folder of the models.
    """
    graph = _graph(job, out)
    if graph is None:
        return ()
    others = (other for other in jobs if other is not job and _graph(other, out) == graph)
    return tuple(readable(other.pictures, other.settings) for other in others)


def _graph(job: Job, out: Path) -> Path | None:
    """Where the INT8 graph lies that a class takes its bank to."""
    settings = job.settings
    is_shared = settings.bank == "external" and settings.precision == "int8"
    return graph_path(out, settings) if is_shared else None
