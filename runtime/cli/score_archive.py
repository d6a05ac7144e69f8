"""``score-archive``: every picture of an archive scored into a Parquet dataset, resumable."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchline.runtime.cli.camera_engine import EngineOptions, open_camera_engine, tensorrt_options
from patchline.runtime.cli.camera_options import (
    DeviceIndex,
    Flavour,
    NoBuild,
    NoCudaGraph,
    ThresholdOption,
)
from patchline.runtime.cli.command import Provider, run_command, stderr_console

if TYPE_CHECKING:
    from patchline.runtime.archive.run import ScoreParts
    from patchline.runtime.archive.scorer import ScoreJob
    from patchline.runtime.archive.settings import Settings
    from patchline.runtime.archive.target import Work

_SMALLEST_THUMBNAIL_PX = 8
_MOST_READERS = 8  # more threads wait for the disk, or for the engine
_MODULES = ("numpy", "cv2", "pyarrow", "ray")
_OF_AN_ONNX, _OF_A_PLAN = ("onnxruntime",), ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class _Cluster:
    """Where ``--ray`` scores, and what each engine gets there."""

    address: str
    workers: int | None
    cpus: int
    gpus: float


@dataclass(frozen=True)
class _Asked:
    """What is scored, by what, into what."""

    engine: EngineOptions
    settings: Settings
    images: Path
    out: Path
    again: bool
    as_json: bool


def score_archive(
    model: Annotated[
        Path, typer.Option(help="Exported model (.onnx) or its TensorRT plan (.trt), with .json.")
    ],
    images: Annotated[
        Path,
        typer.Option(
            metavar="DIR|GLOB", help="Folder with all below it, or a pattern: 'parts/**/*.png'."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Parquet dataset to make or go on with.")
    ],
    bank: Annotated[
        Path | None, typer.Option(help="A product's .bank file, for a model without one.")
    ] = None,
    threshold: ThresholdOption = None,
    boxes: Annotated[
        bool, typer.Option("--boxes/--no-boxes", help="Where in the picture the anomaly lies.")
    ] = True,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            min=_SMALLEST_THUMBNAIL_PX,
            metavar="PX",
            help="Keep the anomaly maps, with this longer side.",
        ),
    ] = None,
    partition_size: Annotated[
        int, typer.Option(min=1, help="Pictures in one part: what an interrupt costs at most.")
    ] = 1000,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures in one call of the engine; more than 1 for a GPU.")
    ] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="Forget what was scored and start anew.")
    ] = False,
    provider: Annotated[Provider, typer.Option(help="Where ONNX Runtime computes.")] = (
        Provider.AUTO
    ),
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="CPU threads of an engine.  [default: one per core, or --ray-cpus]"
        ),
    ] = None,
    device: DeviceIndex = None,
    flavour: Flavour = None,
    no_build: NoBuild = False,
    no_cuda_graph: NoCudaGraph = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="auto|local|ADDRESS", help="Score on a Ray cluster."),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Engines.  [default: as many as there is room for]")
    ] = None,
    ray_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPU cores of each engine.  [default: 1]")
    ] = None,
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            help="GPUs of each; 0.5 puts two on one.  [default: 1 for a plan or --provider cuda]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score every picture of an archive into Parquet: score, verdict, boxes.

    The same call again goes on where the last one ended, and scores pictures that are new.
    """
    from patchline.runtime.archive.settings import make_settings
    from patchline.runtime.camera.native_logs import silence_native_logs

    silence_native_logs()
    cluster = _cluster(ray, ray_workers, ray_cpus, ray_gpus, _gpu_needs(model, provider))
    threads = threads or (cluster.cpus if cluster and _is_onnx(model) else None)
    engine = EngineOptions(
        path=model.absolute(),
        bank=bank and bank.absolute(),
        provider=provider,
        threads=threads,
        device=device,
        flavour=flavour,
        no_build=no_build,
        no_cuda_graph=no_cuda_graph,
    )
    tensorrt_options(engine)  # for what it refuses
    settings = make_settings(
        engine.path,
        engine.bank,
        threshold=threshold,
        has_boxes=boxes,
        thumbnails_px=thumbnails,
        batch_size=batch_size,
        partition_size=partition_size,
    )
    _score(_Asked(engine, settings, images, out.absolute(), again, as_json), cluster)


def _cluster(
    address: str | None,
    workers: int | None,
    cpus: int | None,
    gpus: float | None,
    gpu_needs: tuple[str | None, str | None],
) -> _Cluster | None:
    """Raises: ConfigurationError: an option that would do nothing without a cluster, or cannot."""
    from patchline.runtime.cluster.shares import gpus_of_engine
    from patchline.runtime.errors import ConfigurationError

    if address is not None:
        return _Cluster(address, workers, cpus or 1, gpus_of_engine(gpus, *gpu_needs))
    options = {"--ray-workers": workers, "--ray-cpus": cpus, "--ray-gpus": gpus}
    given = ", ".join(name for name, value in options.items() if value is not None)
    if given:
        raise ConfigurationError(
            f"{given} would do nothing without --ray. Add --ray auto, or leave it out"
        )
    return None


def _score(asked: _Asked, cluster: _Cluster | None) -> None:
    from patchline.runtime.archive.arrow import import_pyarrow
    from patchline.runtime.archive.listing import list_archive
    from patchline.runtime.archive.machine import usable_cores
    from patchline.runtime.archive.scorer import ScoreJob
    from patchline.runtime.archive.target import Target, check_apart
    from patchline.runtime.cli.archive_report import print_changes

    import_pyarrow()  # before an archive is listed for minutes
    check_apart(asked.out, asked.images)
    target = Target(asked.out)
    archive = list_archive(asked.images)
    with target.held():
        work = target.begin(archive, str(asked.images), asked.settings, again=asked.again)
        print_changes(work)
        job = ScoreJob(
            root=archive.root.absolute(),
            out=asked.out,
            model=asked.engine.path,
            bank=asked.engine.bank,
            settings=asked.settings,
            readers=cluster.cpus if cluster else min(usable_cores(), _MOST_READERS),
            open_engine=functools.partial(open_camera_engine, asked.engine),
        )
        _finish(asked, job, work, cluster)


def _finish(asked: _Asked, job: ScoreJob, work: Work, cluster: _Cluster | None) -> None:
    from patchline.runtime.archive.run import score_missing
    from patchline.runtime.cli.archive_report import print_archive, print_interrupted
    from patchline.runtime.progress import ConsoleSteps

    steps = ConsoleSteps(stderr_console())
    try:
        with _scoring(job, work, cluster) as (score_parts, workers):
            result = score_missing(job, work, score_parts, steps)
    except KeyboardInterrupt:
        print_interrupted(asked.out, work)
        raise
    print_archive(asked.out, asked.settings, result, workers, as_json=asked.as_json)


@contextlib.contextmanager
def _scoring(
    job: ScoreJob, work: Work, cluster: _Cluster | None
) -> Iterator[tuple[ScoreParts, int]]:
    """Who scores the parts, and how many do: this process, or a cluster while it is connected."""
    from patchline.runtime.archive.run import score_here

    if cluster is None or not work.missing:
        yield score_here, 1
        return
    from patchline.runtime.archive.on_ray import RayParts, Share
    from patchline.runtime.cluster.connect import connected
    from patchline.runtime.cluster.nodes import check_nodes

    share = Share(cluster.workers, cluster.cpus, cluster.gpus)
    with connected(cluster.address) as joined:
        files = [job.root, job.model, *([job.bank] if job.bank else [])]
        modules = (*_MODULES, *(_OF_AN_ONNX if _is_onnx(job.model) else _OF_A_PLAN))
        check_nodes(joined, paths=files, out=job.out, modules=modules)
        yield RayParts(joined, share), min(share.room(joined), len(work.missing))


def _gpu_needs(model: Path, provider: Provider) -> tuple[str | None, str | None]:
    """What cannot be without a GPU, and what leaves one idle, if anything."""
    if not _is_onnx(model):
        return model.name, None
    needing = "--provider cuda" if provider is Provider.CUDA else None
    return needing, "--provider cpu" if provider is Provider.CPU else None


def _is_onnx(model: Path) -> bool:
    return model.suffix.lower() == ".onnx"


def main() -> None:
    """Entry point of ``score-archive``."""
    run_command(score_archive)


if __name__ == "__main__":
    main()
