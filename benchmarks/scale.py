"""``python -m patchline.benchmarks.scale``: many classes and a large archive, with and without Ray.

``export-model --cls all`` and ``score-archive`` run as a user calls them: in one process, and on a
cluster of this machine with one worker and with two, in turn. Each way gets a core per worker and
one thread per core; the driver of a call is beside them. Banks, models and scores must be the same
bit for bit. More workers than there are here are calculated, see
:mod:`patchline.benchmarks.scale_calculation`.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from patchline.benchmarks.report import write_result
from patchline.benchmarks.scale_calls import (
    Timed,
    check_same,
    export_all,
    score_all,
)
from patchline.benchmarks.scale_cluster import environment, on_cores, ray_head
from patchline.benchmarks.scale_results import Measured, report
from patchline.export.demo.pictures import write_demo_data
from patchline.runtime.archive.arrow import import_pyarrow
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.cluster.extra import import_ray
from patchline.runtime.errors import ClusterError, ConfigurationError

SEED = 0
"""Of the first class's pictures; each class, and the archive behind them, has the next."""

_DEFECTIVE = 0.1  # of the archive


@dataclass(frozen=True)
class Options:
    """What every call shares: words of the command lines, and the drawn pictures."""

    fit: tuple[str, ...]
    folder: Path
    names: tuple[str, ...]
    partition_size: int
    env: Mapping[str, str]

    def export(self, names: Sequence[str], workers: int, ray: Sequence[str]) -> Timed:
        """Make classes in a folder of their own, which stays."""
        out = self.folder / "models"
        shutil.rmtree(out, ignore_errors=True)
        words = (*self.fit, *ray)
        data = self.folder / "data"
        return export_all(data, out, names, words, workers=workers, env=self.env)

    def score(self, workers: int, ray: Sequence[str]) -> Timed:
        """Score the archive into a folder of its own."""
        out = self.folder / "scores"
        shutil.rmtree(out, ignore_errors=True)
        images = str(self.folder / "archive" / "parts" / "t*" / "*" / "*.png")
        words = [*("--partition-size", str(self.partition_size)), *("--threads", "1")]
        words += ["--provider", "cpu", *ray]
        return score_all(self.model, images, out, words, workers=workers, env=self.env)

    @property
    def model(self) -> Path:
        """The model that scores."""
        return self.folder / "model" / f"{self.names[0]}.onnx"


def benchmark_scale(
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Of the clusters.  [default: 1 and 2]")
    ] = None,
    classes: Annotated[int, typer.Option(min=2, help="Drawn classes.")] = 4,
    pictures: Annotated[int, typer.Option(min=8, help="Good pictures of each.")] = 40,
    archive: Annotated[int, typer.Option(min=10, help="Pictures of the archive.")] = 2000,
    partition_size: Annotated[int, typer.Option(min=1, help="Pictures of a part.")] = 100,
    image_size: Annotated[int, typer.Option(min=32, help="Side of pictures and frames.")] = 128,
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="Weights file, or random.")] = "random",
    coreset_ratio: Annotated[float, typer.Option(help="Coreset ratio.")] = 0.01,
    empty_tasks: Annotated[int, typer.Option(min=3, help="Empty tasks of each kind.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Calls of each way.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Run all ways in turn (0, 1, 2, 0, 1, 2) and write medians and the calculation."""
    import_ray()
    import_pyarrow()
    ways, parts = sorted(set(workers or (1, 2))), math.ceil(archive / partition_size)
    _check(ways[-1], classes, parts)
    fit = ["--backbone", backbone, "--weights", _absolute(weights), "--device", "cpu"]
    fit += ["--image-size", str(image_size), "--coreset-ratio", str(coreset_ratio)]
    with tempfile.TemporaryDirectory(prefix="patchline-") as name:
        names = tuple(f"part-{number}" for number in range(classes))
        options = Options(tuple(fit), Path(name), names, partition_size, environment())
        _draw(options, pictures, archive, image_size)
        measured = _measure(options, ways, rounds, empty_tasks)
    results = {
        "backbone": backbone,
        "weights": Path(weights).name,
        "image_size_px": image_size,
        "coreset_ratio": coreset_ratio,
        "classes": classes,
        "pictures_of_a_class": pictures,
        "archive_pictures": archive,
        "pictures_of_a_part": partition_size,
        "seed": SEED,
        "rounds": rounds,
        "threads": "1 of PyTorch, of OpenCV and of the engines that score an archive, on one core "
        "per worker; the engine that verifies an export has ONNX Runtime's default in all ways",
        "same": "models, banks and scores of all calls are the same, bit for bit",
        **report(measured, archive / parts, partition_size),
    }
    path = write_result("scale", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _check(workers: int, classes: int, parts: int) -> None:
    """Raises: ConfigurationError: too few cores, classes or parts for so many workers."""
    with on_cores(workers):
        pass
    if min(classes, parts) <= workers:
        raise ConfigurationError(
            f"{classes} classes and {parts} parts are too few for {workers} workers: the first "
            "task of each does not count. Give more --classes or a smaller --partition-size"
        )


def _absolute(weights: str) -> str:
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def _draw(options: Options, pictures: int, archive: int, side_px: int) -> None:
    size = (side_px, side_px)
    for seed, name in enumerate(options.names, SEED):
        write_demo_data(
            options.folder / "data",
            class_name=name,
            good=pictures,
            test_good=0,
            test_defective=0,
            seed=seed,
            size=size,
        )
    defective = round(_DEFECTIVE * archive)
    write_demo_data(
        options.folder / "archive",
        class_name="parts",
        good=archive - defective,
        test_good=0,
        test_defective=defective,
        seed=SEED + len(options.names),
        size=size,
    )


def _measure(options: Options, ways: Sequence[int], rounds: int, empty_tasks: int) -> Measured:
    measured = Measured()
    with on_cores(1):  # the warm-up, and the model of the archive
        options.export(options.names[:2], 1, ())
    (options.folder / "models").rename(options.folder / "model")
    with ray_head(ways[0], options.env):
        pass
    for turn in range(rounds):
        for way in (0, *ways):
            stderr_console().print(f"round {turn + 1} of {rounds}, {way} workers")
            with _cluster(way, options, measured) as words:
                _call(options, way, words, measured)
                if way == ways[0]:
                    found = _overheads(words[1], options, empty_tasks)
                    measured.overheads.append(found)
    return measured


@contextlib.contextmanager
def _cluster(way: int, options: Options, measured: Measured) -> Iterator[tuple[str, ...]]:
    """The words that a call gets where it is to run; without Ray there are none, and one core."""
    if way == 0:
        with on_cores(1):
            yield ()
        return
    with ray_head(way, options.env) as (address, start_s):
        measured.cluster_s.setdefault(way, []).append(start_s)
        yield ("--ray", address, "--ray-cpus", "1")


def _call(options: Options, way: int, words: Sequence[str], measured: Measured) -> None:
    workers = max(way, 1)
    of_archive = (*words, "--ray-workers", str(way)) if words else ()
    runs: list[tuple[dict[int, list[Timed]], Callable[[], Timed]]] = [
        (measured.classes, lambda: options.export(["all"], workers, words)),
        (measured.archive, lambda: options.score(workers, of_archive)),
    ]
    for calls, run in runs:
        timed = run()
        first = next(iter(calls.values()), [timed])[0]
        check_same(first.digests, timed.digests, f"{way} workers")
        calls.setdefault(way, []).append(timed)


def _overheads(address: str, options: Options, tasks: int) -> dict[str, float]:
    """Run :mod:`patchline.benchmarks.scale_overhead`, which is another driver of the cluster."""
    module = "patchline.benchmarks.scale_overhead"
    program = [sys.executable, "-m", module, address, str(options.model), str(tasks)]
    done = subprocess.run(program, env=dict(options.env), capture_output=True, text=True)
    if done.returncode != 0:
        last = " ".join(done.stderr.split()[-80:])
        raise ClusterError(f"the empty tasks ended with status {done.returncode}: {last}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.scale``."""
    run_command(benchmark_scale)


if __name__ == "__main__":
    main()
