"""``python -m patchline.benchmarks.coreset_sharded``: the coreset in shards against the exact one.

Per coreset ratio, number of shards and delta: how far the farthest row lies from the bank, how many
rows the shards' covers hold, the time, and the image AUROC of the default score. A case whose
covers hold more than half of the rows is given up, since nothing would be saved.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor

from patchline.benchmarks.report import write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.coreset import Coreset, coreset_size, greedy_coreset
from patchline.export.coreset_sharded import (
    ShardCover,
    Sharding,
    ShardTask,
    shard_cover,
    sharded_coreset,
)
from patchline.export.cross_fit import HeadSettings, Images, held_out_statistics, judge_images
from patchline.export.datasets import good_pictures, labelled_pictures
from patchline.export.evaluation.image_metrics import image_ranking
from patchline.export.features import TrainingFeatures, extract_features
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime.cli.command import run_command
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import SilentSteps

SEED = 0
"""Of the first picks, the projection and the folds."""

LARGEST_COVER_SHARE = 0.5


@dataclass(frozen=True)
class _Material:
    """Features of a class: the training pictures first, then the labelled ones."""

    features: TrainingFeatures
    training: Images
    is_defective: Images

    @property
    def projections(self) -> Tensor:
        count: int = self.training.sum() * self.features.patches
        return self.features.projections[:count]


def benchmark_coreset_sharded(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    cls: Annotated[str, typer.Option(help="Class whose patch embeddings are used.")] = "bottle",
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="Weights file, or random.")] = "random",
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    ratios: Annotated[str, typer.Option(help="Coreset ratios.")] = "0.01,0.1",
    shards: Annotated[str, typer.Option(help="Numbers of shards.")] = "2,4,8",
    deltas: Annotated[str, typer.Option(help="Deltas.")] = "1,0.75,0.5,0.25,0.1",
    scored: Annotated[float, typer.Option(help="Largest ratio whose bank is scored.")] = 0.01,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Choose each bank, measure it, and write what was found."""
    embedder = PatchEmbedder(backbone, ModelSize(height=image_size, width=image_size), weights)
    material = _embed(data, cls, embedder)
    cases = []
    for ratio in map(float, ratios.split(",")):
        judge = _Judge(material, embedder, ratio) if ratio <= scored else None
        numbers = [(int(n), float(d)) for n in shards.split(",") for d in deltas.split(",")]
        cases.append(_compare(material, ratio, numbers, judge))
    results = {
        "class_name": cls,
        "backbone": backbone,
        "weights": Path(weights).name,
        "image_size_px": image_size,
        "rows": len(material.projections),
        "dimension": material.projections.shape[1],
        "score": DEFAULT_SCORE,
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "largest_cover_share": LARGEST_COVER_SHARE,
        "runs_per_case": 1,
        "ratios": cases,
    }
    path = write_result("coreset-sharded", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


@torch.inference_mode()
def _embed(data: Path, cls: str, embedder: PatchEmbedder) -> _Material:
    training, labelled = good_pictures(data, cls).paths, labelled_pictures(data, cls)
    features = extract_features(
        (*training, *(picture.path for picture in labelled)),
        embedder,
        batch_size=8,
        seed=SEED,
    )
    return _Material(
        features,
        np.arange(len(features.paths)) < len(training),
        np.array([picture.is_defective for picture in labelled]),
    )


class _Judge:
    """Image AUROC of a bank; the statistics of the score are those of exact banks for all."""

    def __init__(self, material: _Material, embedder: PatchEmbedder, ratio: float) -> None:
        self._material = material
        self._settings = HeadSettings(
            grid=embedder.grid, size=embedder.size, score=DEFAULT_SCORE, neighbors=9,
            coreset_ratio=ratio, seed=SEED, device=material.features.projections.device,
        )  # fmt: skip
        self._statistics: DistanceStatistics = held_out_statistics(
            material.features, material.training, self._settings, SilentSteps()
        )

    def image_auroc(self, indices: Tensor) -> float:
        features = self._material.features
        head = self._settings.head(features.rows.gather(indices), self._statistics)
        scores, _ = judge_images(
            features, ~self._material.training, head, self._settings, SilentSteps()
        )
        return round(image_ranking(scores, self._material.is_defective).auroc, 5)


def _compare(
    material: _Material, ratio: float, numbers: list[tuple[int, float]], judge: _Judge | None
) -> dict[str, Any]:
    rows = material.projections
    size = coreset_size(len(rows), ratio)
    started = time.perf_counter()
    exact = greedy_coreset(rows, size, seed=SEED)
    found = _described(exact, time.perf_counter() - started, judge)
    cases = [_in_shards(rows, size, n, delta, exact.radius, judge) for n, delta in numbers]
    return {"coreset_ratio": ratio, "picks": size, "exact": found, "sharded": cases}


def _in_shards(
    rows: Tensor, size: int, shards: int, delta: float, exact_radius: float, judge: _Judge | None
) -> dict[str, Any]:
    covers: list[int] = []

    def run(
        step: Any, tasks: Iterable[ShardTask]
    ) -> Iterable[ShardCover]:  # as map, and counts the picks
        for task in tasks:
            cover = shard_cover(task)
            covers.append(len(cover.picks))
            yield cover

    room = int(len(rows) * LARGEST_COVER_SHARE)
    case: dict[str, Any] = {"shards": shards, "delta": delta, "bound_over_best": 2 + 2 * delta}
    started = time.perf_counter()
    try:
        picked = sharded_coreset(
            lambda first, last: rows[first:last],
            torch.ones(len(rows), dtype=torch.bool),
            size,
            Sharding(shards, delta, room, run),
            seed=SEED,
        )
    except ConfigurationError:
        return {**case, "given_up": f"a cover holds more than {room // shards} rows"}
    described = _described(picked, time.perf_counter() - started, judge)
    return {
        **case,
        "covers_rows": sum(covers),
        "covers_share_of_rows": round(sum(covers) / len(rows), 4),
        **described,
        "radius_over_exact": round(picked.radius / exact_radius, 4),
    }


def _described(coreset: Coreset, elapsed_s: float, judge: _Judge | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "covering_radius": round(coreset.radius, 5),
        "chosen_in_s": round(elapsed_s, 2),
    }
    if judge is not None:
        found["image_auroc"] = judge.image_auroc(coreset.indices)
    return found


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.coreset_sharded``."""
    run_command(benchmark_coreset_sharded)


if __name__ == "__main__":
    main()
