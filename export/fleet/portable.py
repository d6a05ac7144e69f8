"""A class and its paths as every node of a cluster understands them (issue 9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from patchline.export.datasets import GoodPictures
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.export.weights import RANDOM
from patchline.runtime.errors import ConfigurationError


def portable_output(output: Output) -> Output:
    """The same with absolute paths, for nobody to look at.

    Raises:
        ConfigurationError: it asks for what only one process can give.
    """
    unfit = [
        option
        for option, value in (("--track", output.track), ("--sensitivity", output.sensitivity))
        if value is not None
    ]
    if unfit:
        raise ConfigurationError(
            f"{' and '.join(unfit)} would show the classes of one process, and --ray makes them "
            "in many: leave one of them out"
        )
    state = None if output.state is None else output.state.absolute()
    return replace(output, folder=output.folder.absolute(), state=state)


def portable_job(job: Job, device: str) -> Job:
    """The same with absolute paths.

    Args:
        job: how a class comes about.
        device: where PyTorch computes on the node: ``cpu`` or ``cuda``.
    """
    given = job.pictures
    pictures = GoodPictures(
        given.class_name, given.folder.absolute(), tuple(path.absolute() for path in given.paths)
    )
    weights = weights_file(job)
    changes = {"device": device, **({"weights": str(weights)} if weights else {})}
    return replace(job, pictures=pictures, settings=job.settings.model_copy(update=changes))


def weights_file(job: Job) -> Path | None:
    """Absolute path of the weights, where they are in a file."""
    weights = job.settings.weights
    return None if weights is None or weights == RANDOM else Path(weights).absolute()


def device_on_ray(asked: str, gpus: float | None) -> tuple[str, float]:
    """Where PyTorch computes, and the share of a GPU that a class gets.

    Args:
        asked: of ``--device``.
        gpus: of ``--ray-gpus``; ``None`` where it was not given.

    Raises:
        ConfigurationError: they contradict each other.
    """
    if gpus is None:
        return ("cuda", 1.0) if asked == "cuda" else ("cpu", 0.0)
    if asked == "cuda" and gpus == 0:
        raise ConfigurationError(
            "--device cuda needs a GPU, and --ray-gpus 0 gives none: leave one of them out"
        )
    if asked == "cpu" and gpus > 0:
        raise ConfigurationError(
            f"--ray-gpus {gpus:g} would lie idle with --device cpu: leave one of them out"
        )
    return ("cuda", gpus) if gpus > 0 else ("cpu", 0.0)
