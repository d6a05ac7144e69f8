"""``python -m patchline.benchmarks.coreset``: the exact coreset in rounds against the naive loop.

Both pick from the same projected rows with the same first pick. The naive loop is measured in two
forms: by differences, as the textbook has it, and with one matrix-vector product per pick, the
best one can do while reading every row for every pick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from patchline.benchmarks.report import alternate, pair_ratios, summarize, write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.coreset import coreset_size, greedy_coreset, random_projection
from patchline.export.datasets import good_pictures
from patchline.export.features import extract_features
from patchline.runtime.cli.command import run_command
from patchline.runtime.contract import ModelSize

SEED = 0
"""Of the first pick, the projection and the synthetic rows."""


def benchmark_coreset(
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders; synthetic rows without it.")
    ] = None,
    cls: Annotated[str, typer.Option(help="Class whose patch embeddings are used.")] = "bottle",
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="Weights file, or random.")] = "random",
    ratio: Annotated[float, typer.Option(help="Coreset ratio.")] = 0.01,
    rows: Annotated[int, typer.Option(help="Number of synthetic rows.")] = 214_016,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each method.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Time the methods in turn (A B C A B C) and write medians and ratios."""
    console = Console(highlight=False)
    projections = _projections(data, cls, backbone, weights) if data else _synthetic(rows)
    size = coreset_size(len(projections), ratio)
    picks: dict[str, list[int]] = {}

    def run(name: str, method: Any) -> Any:
        return lambda: picks.__setitem__(name, method(projections, size))

    times_ms = alternate(
        {
            "rounds": run("rounds", _in_rounds),
            "naive, matrix-vector": run("naive, matrix-vector", naive_by_product),
            "naive, differences": run("naive, differences", naive_by_differences),
        },
        rounds=rounds,
        warmup=0,
    )
    results = {
        "rows": len(projections),
        "dimension": projections.shape[1],
        "picks": size,
        "data": f"{cls}, {backbone}, weights {Path(weights).name}"
        if data
        else "synthetic clusters",
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "methods": {name: summarize(times) for name, times in times_ms.items()},
        "speedup_over": {
            name: pair_ratios(times_ms[name], times_ms["rounds"])
            for name in times_ms
            if name != "rounds"
        },
        "same_picks_as_naive_by_differences": _agreement(picks),
    }
    path = write_result("coreset", results, out)
    console.print_json(data=results)
    console.print(f"written to {path}")


def naive_by_differences(rows: Tensor, size: int) -> list[int]:
    """The textbook loop: distances of all rows to each pick, by differences."""
    return _naive(rows, size, lambda pick: (rows - rows[pick]).square_().sum(1))


def naive_by_product(rows: Tensor, size: int) -> list[int]:
    """The same loop with one matrix-vector product per pick."""
    norms = rows.square().sum(1)
    return _naive(
        rows, size, lambda pick: torch.addmv(norms, rows, rows[pick], alpha=-2).add_(norms[pick])
    )


def _naive(rows: Tensor, size: int, distances_to: Any) -> list[int]:
    nearest = torch.full((len(rows),), torch.inf)
    pick = int(torch.randint(len(rows), (1,), generator=torch.Generator().manual_seed(SEED)))
    picks = [pick]
    while len(picks) < size:
        torch.minimum(nearest, distances_to(pick), out=nearest)
        nearest[pick] = -1
        pick = int(nearest.argmax())
        picks.append(pick)
    return picks


def _in_rounds(rows: Tensor, size: int) -> list[int]:
    picks: list[int] = greedy_coreset(rows, size, seed=SEED).indices.tolist()
    return picks


def _projections(data: Path, cls: str, backbone: str, weights: str) -> Tensor:
    embedder = PatchEmbedder(backbone, ModelSize(height=256, width=256), weights)
    features = extract_features(
        good_pictures(data, cls).paths,
        embedder,
        batch_size=8,
        seed=SEED,
    )
    # Made in inference mode; the benchmark works on an ordinary tensor.
    return features.projections.clone()


def _synthetic(count: int) -> Tensor:
    """Clusters of a low intrinsic dimension, projected as patch embeddings are."""
    generator = torch.Generator().manual_seed(SEED)
    latent = torch.randn(count, 12, generator=generator)
    basis = torch.randn(12, 384, generator=generator)
    values = (latent @ basis).relu_() + 0.1 * torch.randn(count, 384, generator=generator)
    matrix = random_projection(384, SEED)
    return values if matrix is None else values @ matrix


def _agreement(picks: dict[str, list[int]]) -> str:
    pairs = zip(picks["rounds"], picks["naive, differences"], strict=True)
    agreeing = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
    total = len(picks["rounds"])
    return f"all {total}" if agreeing is None else f"the first {agreeing} of {total}"


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.coreset``."""
    run_command(benchmark_coreset)


if __name__ == "__main__":
    main()
