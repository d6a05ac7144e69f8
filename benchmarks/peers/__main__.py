"""``python -m patchline.benchmarks.peers``: Patchline beside its peers, in one run on one machine.

Run from the root of a checkout. Each peer gets a virtual environment with pinned packages and a
worker process; each part writes a results file of its own, so that a late failure loses nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchline.benchmarks.peers.catalogue import NOTES, OTHERS, Peer, chosen, makers
from patchline.benchmarks.peers.environments import Environments
from patchline.benchmarks.peers.material import Plan, model, shared
from patchline.benchmarks.peers.page import write_page
from patchline.benchmarks.peers.part_accuracy import measure_accuracy
from patchline.benchmarks.peers.part_coreset import measure_coreset
from patchline.benchmarks.peers.part_fit import measure_fit
from patchline.benchmarks.peers.part_install import RUNTIMES, measure_install
from patchline.benchmarks.peers.part_latency import measure_latency
from patchline.benchmarks.peers.part_memory import measure_memory
from patchline.benchmarks.peers.record import Record, show
from patchline.benchmarks.report import write_result
from patchline.runtime.cli.command import run_command
from patchline.runtime.errors import ConfigurationError

PREPARE = "prepare"
PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "install": measure_install,
    "latency": measure_latency,
    "memory": measure_memory,
    "coreset": measure_coreset,
    "fit": measure_fit,
    "accuracy": measure_accuracy,
}


def benchmark_peers(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    weights: Annotated[
        str, typer.Option(help="Of the first backbone: a file, or random; others are random.")
    ],
    peers: Annotated[str, typer.Option(help="Peers, with commas.")] = ",".join(OTHERS),
    only: Annotated[
        str,
        typer.Option(help=f"Parts, with commas: {PREPARE} (environments and models), the others."),
    ] = ",".join(PARTS),
    work: Annotated[Path, typer.Option(help="Keeps environments and models.")] = Path(".peers"),
    classes: Annotated[str, typer.Option(help="With commas.")] = "bottle,pill",
    backbones: Annotated[str, typer.Option(help="With commas.")] = "resnet18,wide_resnet50_2",
    bank_rows: Annotated[str, typer.Option(help="With commas.")] = "2048,20480,102400",
    ratios: Annotated[str, typer.Option(help="Of fit and accuracy, with commas.")] = "0.01",
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    threads: Annotated[int, typer.Option(min=0, help="Of each process; 0: one per core.")] = 0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Of alternation, at most; each part says how many.")
    ] = 9,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two blocks.")] = 0.3,
    block: Annotated[float, typer.Option(min=0, help="Seconds of frames in a block.")] = 1.0,
    limit: Annotated[
        float, typer.Option(min=1, help="Seconds for all rounds of a setting, or for a coreset.")
    ] = 60,
    fit_limit: Annotated[float, typer.Option(min=1, help="Seconds for one fit.")] = 900,
    python: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PYTHON", help="An environment to use as it is."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
) -> None:
    """Measure Patchline and its peers in turn, and write one results file for each part."""
    names, parts = _listed(peers), _listed(only)
    if unknown := [part for part in parts if part not in (PREPARE, *PARTS)]:
        raise ConfigurationError(
            f"there is no part {', '.join(unknown)}, expected some of: "
            f"{', '.join((PREPARE, *PARTS))}"
        )
    measured = chosen(names)
    progress = Console(stderr=True, highlight=False)
    plan = Plan(
        data=data,
        weights=weights,
        work=work,
        environments=Environments(work, given=dict(map(_given, python or []))),
        say=lambda text: progress.print(text, markup=False, soft_wrap=True),
        classes=tuple(_listed(classes)),
        backbones=tuple(_listed(backbones)),
        image_px=image_size,
        bank_rows=tuple(_number(text, int, "--bank-rows") for text in _listed(bank_rows)),
        threads=threads or os.cpu_count() or 1,
        rounds=rounds,
        pause_s=pause,
        block_s=block,
        limit_s=limit,
        fit_limit_s=fit_limit,
        ratios=tuple(_number(text, float, "--ratios") for text in _listed(ratios)),
    )
    if PREPARE in parts:
        prepare(plan, measured, names)
    wanted = [part for part in PARTS if part in parts]
    packages = _packages(plan, measured) if wanted else {}
    for part in wanted:
        document = measure(part, plan, measured, names)
        settings = _settings(plan, measured)
        results = {**settings, "packages_of_peers": packages, **document}
        path = write_result(f"peers-{part}", results, out)
        show(Console(highlight=False, width=None if sys.stdout.isatty() else 200), part, document)
        typer.echo(f"written to {path}")
        write_page(path.parent, path.stem.partition("--")[2])


def prepare(plan: Plan, peers: list[Peer], names: list[str]) -> Record:
    """Make every environment and every model beforehand; what fails is told, and left for later."""
    record = Record(plan.say)
    needed = [
        *(peer.environment for peer in peers),
        *(maker.environment for maker in makers(peers)),
        *(runtime.environment for name in names for runtime in RUNTIMES[name]),
    ]
    for name in dict.fromkeys(needed):
        plan.say(f"environment {name}")
        record.attempt({"environment": name}, lambda name=name: plan.environments.python(name))  # type: ignore[misc]
    for backbone in plan.backbones:
        for rows in plan.bank_rows:
            for peer in (peer for peer in peers if peer.is_for_speed):
                record.attempt(
                    {"peer": peer.name, "backbone": backbone, "bank_rows": rows},
                    lambda peer=peer, backbone=backbone, rows=rows: model(  # type: ignore[misc]
                        plan, peer, backbone, rows
                    ),
                )
    return record


def measure(part: str, plan: Plan, peers: list[Peer], names: list[str]) -> dict[str, Any]:
    """One part: its rows, its failures and what they are."""
    plan.say(f"--- {part}")
    if part == "install":
        return measure_install(plan, names)
    shared(plan, plan.backbones[0])  # embedding is no part of any figure
    return PARTS[part](plan, peers)


def _settings(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    return {
        "peers": {peer.name: NOTES[peer.name] for peer in peers},
        "threads": plan.threads,
        "image_size_px": plan.image_px,
        "weights": {
            name: Path(plan.weights).name if number == 0 else "random, the same for all"
            for number, name in enumerate(plan.backbones)
        },
        "pause_s": plan.pause_s,
    }


def _packages(plan: Plan, peers: list[Peer]) -> dict[str, dict[str, str]]:
    """Versions that really run, by peer; a peer that does not start is among the failures."""
    record = Record(lambda text: None)
    found = {}
    for peer in peers:
        worker = record.attempt({"peer": peer.name}, lambda peer=peer: plan.judge(peer))  # type: ignore[misc]
        if worker is not None:
            with worker:
                found[peer.name] = worker.hello["packages"]
    return found


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _number(text: str, kind: Callable[[str], Any], option: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{option} has {text!r}, expected numbers above 0, with commas")
    return value


def _given(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not Path(path).is_file():
        raise ConfigurationError(f"--python is {text!r}, expected NAME=PYTHON, a program")
    return name, Path(path).absolute()


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.peers``."""
    run_command(benchmark_peers)


if __name__ == "__main__":
    main()
