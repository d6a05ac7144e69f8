"""``python -m patchline.benchmarks.influence``: the closed form, autograd, the loop over channels.

One question answered in several ways, from patches [N, D] and a bank [M, D] to the influence
[N, D], the Jacobian of the mean distance to the k nearest rows. A loop runs over some channels,
evenly spread, and its times are scaled to all D.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import torch
import typer
from rich.console import Console
from torch import Tensor

from patchline.benchmarks import influence_forms as forms
from patchline.benchmarks.influence_agreement import CENTRAL, FORWARD, check_agreement
from patchline.benchmarks.influence_forms import MeanDistance, Question
from patchline.benchmarks.report import alternate, summarize, write_result
from patchline.export.influence import closed_form_influence, influence_of_rows
from patchline.export.neighbors import NearestNeighbors
from patchline.runtime.cli.command import run_command
from patchline.runtime.errors import ConfigurationError

SEED = 0
"""Of the clusters."""

CLOSED, EXPORTED = "closed form", "closed form, exported"
GIVEN = "given the neighbours: "
"""How the names of forms begin that are spared the search."""


def benchmark_influence(
    rows: Annotated[int, typer.Option(min=1, help="Rows M of the memory bank.")] = 2048,
    patches: Annotated[int, typer.Option(min=1, help="Patches N.")] = 1024,
    dimension: Annotated[int, typer.Option(min=1, help="Channels D.")] = 1024,
    neighbors: Annotated[int, typer.Option(min=1, help="Neighbours k.")] = 9,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each form.")] = 11,
    channels_measured: Annotated[
        int, typer.Option(min=1, help="Channels that a loop runs over.")
    ] = 16,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Check that all forms agree, time them in turn (A B A B), write medians and ratios."""
    console = Console(highlight=False)
    question = ask(patches, rows, dimension, neighbors, channels_measured)
    runs = all_forms(question)
    # The check runs every form once, which is their warm-up.
    others = {name: run for name, run in runs.items() if name != CLOSED}
    agreement = check_agreement(runs[CLOSED](), others, question)
    times_ms = {
        name: [ms * scale_to_all(name, question) for ms in measured_ms]
        for name, measured_ms in alternate(runs, rounds=rounds, warmup=0).items()
    }
    results: dict[str, Any] = {
        "rows": rows,
        "patches": patches,
        "dimension": dimension,
        "neighbors": question.search.k,
        "data": "synthetic clusters",
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "exported_runs_in": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "loops": f"measured over {channels_measured} of {dimension} channels, scaled to all",
        "forms": {name: summarize(times) for name, times in times_ms.items()},
        "times_the_closed_form": ratios(times_ms, CLOSED),
        "times_the_exported_closed_form": ratios(times_ms, EXPORTED),
        "given_the_neighbours_times_the_closed_form": ratios(times_ms, GIVEN + CLOSED),
        "autograd_keeps_bytes": {
            name: forms.saved_bytes(mean_distance, question)
            for name, mean_distance in _for_autograd(question).items()
        },
        "agreement": agreement,
    }
    path = write_result(f"influence-{dimension}-{rows}", results, out)
    console.print_json(data=results)
    console.print(f"written to {path}")


def ask(patches: int, rows: int, dimension: int, neighbors: int, channels: int) -> Question:
    """Drawn patches and bank rows from the same clusters, of a low intrinsic dimension.

    Raises:
        ConfigurationError: there are fewer than ``channels`` channels.
    """
    if channels > dimension:
        raise ConfigurationError(
            f"--channels-measured is {channels}, expected at most --dimension, {dimension}"
        )
    generator = torch.Generator().manual_seed(SEED)
    latent = torch.randn(patches + rows, 12, generator=generator)
    values = (latent @ torch.randn(12, dimension, generator=generator)).relu_()
    values += 0.1 * torch.randn(values.shape, generator=generator)
    embeddings, bank = values[:patches].clone(), values[patches:].clone()
    search = NearestNeighbors(bank, neighbors)
    found = closed_form_influence(embeddings, search.gather(search(embeddings)))
    # The textbook's step of a forward difference: truncation and rounding weigh alike.
    step = torch.finfo(torch.float32).eps ** 0.5 * float(found.mean_distance.median())
    spread = torch.linspace(0, dimension - 1, channels).round().long().tolist()
    return Question(embeddings, bank, search, spread, step)


def all_forms(question: Question) -> dict[str, Callable[[], Tensor]]:
    """All that is timed, by name; loops give ``[N, C]`` (their channels), the others ``[N, D]``."""
    embeddings, search = question.embeddings, question.search
    indices = search(embeddings)
    module = forms.ClosedForm(search)
    ours = forms.after_search(search, forms.by_differences)
    by_cdist = forms.through_cdist(question.memory_bank, search.k)

    # Every form is given the indices and gathers the rows itself, as it would after a search.
    def given(mean_distance: Callable[[Tensor], MeanDistance]) -> MeanDistance:
        return mean_distance(search.gather(indices))

    forward = partial(forms.forward_differences, question=question)
    return {
        CLOSED: lambda: module(embeddings),
        EXPORTED: forms.in_onnx_runtime(module, embeddings),
        **_autograd_forms(_for_autograd(question), embeddings),
        FORWARD: lambda: forward(ours),
        f"{FORWARD}, cdist": lambda: forward(by_cdist),
        CENTRAL: lambda: forms.central_differences(ours, question),
        GIVEN + CLOSED: lambda: influence_of_rows(embeddings, search.gather, indices).jacobian,
        f"{GIVEN}autograd": lambda: forms.autograd_jacobian(
            given(forms.by_differences), embeddings
        ),
        f"{GIVEN}autograd, cdist": lambda: forms.autograd_jacobian(
            given(forms.by_small_cdist), embeddings
        ),
        GIVEN + FORWARD: lambda: forward(given(forms.by_differences)),
    }


def _for_autograd(question: Question) -> dict[str, MeanDistance]:
    search = question.search
    return {
        "autograd": forms.through_cdist(question.memory_bank, search.k),
        "autograd after our search": forms.after_search(search, forms.by_differences),
        "autograd after our search, cdist": forms.after_search(search, forms.by_small_cdist),
    }


def _autograd_forms(
    mean_distances: dict[str, MeanDistance], embeddings: Tensor
) -> dict[str, Callable[[], Tensor]]:
    return {
        name: partial(forms.autograd_jacobian, mean_distance, embeddings)
        for name, mean_distance in mean_distances.items()
    }


def scale_to_all(name: str, question: Question) -> float:
    """What a time is multiplied by: mean distances a loop over all channels takes, by those taken.

    1 for everything but a loop.
    """
    dimension, measured = question.embeddings.shape[1], len(question.channels)
    if FORWARD in name:
        return (dimension + 1) / (measured + 1)
    return dimension / measured if CENTRAL in name else 1.0


def ratios(times_ms: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median and quartiles of time over the base's time, pair by pair, for forms of its kind."""
    found = {}
    for name, times in times_ms.items():
        if name != base and name.startswith(GIVEN) == base.startswith(GIVEN):
            pairs = zip(times, times_ms[base], strict=True)
            summary = summarize([form_ms / base_ms for form_ms, base_ms in pairs])
            found[name] = {part: summary[f"{part}_ms"] for part in ("median", "q1", "q3")}
    return found


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.influence``."""
    run_command(benchmark_influence)


if __name__ == "__main__":
    main()
