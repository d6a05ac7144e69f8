"""``benchmark-engine``: how fast an engine is on this machine, or two against each other."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchline.runtime.cli.camera_engine import EngineOptions
from patchline.runtime.cli.camera_options import DeviceIndex, Flavour, NoCudaGraph, Threads
from patchline.runtime.cli.command import Provider, print_warning, run_command, stderr_console

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patchline.runtime.benchmark.frames import FramePool
    from patchline.runtime.benchmark.subject import Subject
    from patchline.runtime.benchmark.timing import Limits

_ROUNDS = 15


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


@dataclass(frozen=True)
class _Asked:
    """What is measured, and what is given back of it."""

    limits: Limits
    batch: int | None
    images: Path | None
    as_json: bool
    samples: bool


def benchmark_engine(
    engine: Annotated[
        Path | None, typer.Option(help="Exported model (.onnx) or its TensorRT plan (.trt).")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Two of them, run alternately, instead of --engine."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest batch of the throughput; what a plan takes, or 8, by default. With "
            "--compare: frames in one call.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=2, help=f"Pairs of blocks of --compare.  [{_ROUNDS}]")
    ] = None,
    warm_up: Annotated[
        float,
        typer.Option(min=0, callback=_finite, metavar="MS", help="Before times count, in ms."),
    ] = 200.0,
    iterations: Annotated[int, typer.Option(min=1, help="At least so many calls count.")] = 10,
    duration: Annotated[
        float,
        typer.Option(
            min=0.001, callback=_finite, metavar="S", help="For at least so many seconds."
        ),
    ] = 3.0,
    images: Annotated[
        Path | None, typer.Option(help="Pictures, or a folder of them; random frames by default.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="A product's .bank file, for a model without one.")
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where ONNX Runtime computes.")] = (
        Provider.AUTO
    ),
    threads: Threads = None,
    device: DeviceIndex = None,
    flavour: Flavour = None,
    no_cuda_graph: NoCudaGraph = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="With --json: every single time as well.")
    ] = False,
) -> None:
    """Time an engine: latency, its phases, throughput, and all that they depend on.

    A plan that does not fit this machine is an error; nothing is built.
    """
    from patchline.runtime.benchmark.timing import Limits

    logging.basicConfig(format="warning: %(message)s")
    _check(engine, compare, rounds=rounds, as_json=as_json, samples=samples)
    asked = _Asked(Limits(warm_up, iterations, duration), batch, images, as_json, samples)
    options = [
        EngineOptions(path, bank, provider, threads, device, flavour, False, no_cuda_graph)
        for path in ([engine] if engine else compare or ())
    ]
    if engine:
        _benchmark(options[0], asked)
    else:
        _compare(options, rounds or _ROUNDS, asked)


def _check(
    engine: Path | None,
    compare: tuple[Path, Path] | None,
    *,
    rounds: int | None,
    as_json: bool,
    samples: bool,
) -> None:
    from patchline.runtime.errors import ConfigurationError

    if (engine is None) == (compare is None):
        found = "both --engine and --compare are" if engine else "neither --engine nor --compare is"
        raise ConfigurationError(f"{found} given: say --engine FILE, or --compare FILE FILE")
    if rounds is not None and compare is None:
        raise ConfigurationError("--rounds would do nothing without --compare. Leave it out")
    if samples and not as_json:
        raise ConfigurationError("--samples would do nothing without --json. Add it")


def _benchmark(options: EngineOptions, asked: _Asked) -> None:
    from patchline.runtime.benchmark.document import benchmark_document
    from patchline.runtime.benchmark.measurable import batch_sizes
    from patchline.runtime.benchmark.measure import measure
    from patchline.runtime.benchmark.watch import Watch
    from patchline.runtime.cli.benchmark_report import print_benchmark
    from patchline.runtime.cli.benchmark_subjects import opened

    with opened([options]) as (subject,):
        pool = _pool(subject, asked)
        batches = batch_sizes(subject.engine.facts, asked.batch, subject.path)
        watch = Watch(asked.limits)
        measured = measure(subject.engine, pool, batches, asked.limits, _say)
        about = watch.end(measured.warnings())
        document = benchmark_document(subject, pool, measured, about, samples=asked.samples)
    _give(document, print_benchmark, asked)


def _compare(options: Sequence[EngineOptions], rounds: int, asked: _Asked) -> None:
    from patchline.runtime.benchmark.compare import compare
    from patchline.runtime.benchmark.document import comparison_document
    from patchline.runtime.benchmark.measurable import check_batch
    from patchline.runtime.benchmark.subject import differences
    from patchline.runtime.benchmark.watch import Watch
    from patchline.runtime.cli.benchmark_report import print_comparison
    from patchline.runtime.cli.benchmark_subjects import opened

    with opened(options) as (first, second):
        both, engines = (first, second), (first.engine, second.engine)
        batch = asked.batch or max(engine.facts.least_batch for engine in engines)
        for subject in both:
            check_batch(subject.engine.facts, batch, subject.path)
        pools = _pool(first, asked), _pool(second, asked)
        watch = Watch(asked.limits)
        compared = compare(engines, pools, batch, rounds, asked.limits, _say)
        unequal = differences(first.engine.manifest, second.engine.manifest)
        about = watch.end([*unequal, *compared.warnings()])
        document = comparison_document(both, pools, compared, about, samples=asked.samples)
    _give(document, print_comparison, asked)


def _pool(subject: Subject, asked: _Asked) -> FramePool:
    from patchline.runtime.benchmark.frames import drawn_frames, picture_frames

    size = subject.engine.manifest.model_size
    return picture_frames(asked.images, size) if asked.images else drawn_frames(size)


def _say(sentence: str) -> None:
    # A line and no bar: a bar that moves would take its share of the processor.
    stderr_console().print(sentence, markup=False, soft_wrap=True)


def _give(
    document: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None], asked: _Asked
) -> None:
    if asked.as_json:
        typer.echo(json.dumps(document, allow_nan=False))
    else:
        show(document)
    for warning in document["warnings"]:
        print_warning(warning)


def main() -> None:
    """Entry point of ``benchmark-engine``."""
    run_command(benchmark_engine)


if __name__ == "__main__":
    main()
