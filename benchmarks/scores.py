"""``python -m patchline.benchmarks.scores``: which score the evidence supports (issue 3).

Every registered score over every class, for several coreset ratios, with and without the local
averaging of features, and for several k. Statistics are frozen and from held-out good pictures,
as in an exported model; the labels are used for the figures and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from patchline.benchmarks.report import write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.cross_fit import HeadSettings, choose_bank, held_out_banks
from patchline.export.datasets import find_classes, good_pictures, labelled_pictures
from patchline.export.evaluation.aupro import aupro, pro_curve, region_overlaps
from patchline.export.evaluation.image_metrics import image_ranking
from patchline.export.evaluation.pixel_counts import count_pixels, pixel_ranking
from patchline.export.evaluation.result import Metrics
from patchline.export.evaluation.test_set import TestSet, load_test_set
from patchline.export.features import TrainingFeatures, extract_features, read_frames
from patchline.export.fit import choose_device
from patchline.export.scores import SCORES
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.progress import SilentSteps

WITHOUT_K = frozenset({"distance", "patchcore"})
"""Scores of the nearest row alone: one figure for every k."""

_FPR_LIMIT = 0.3


@dataclass(frozen=True)
class Case:
    """One combination; ``neighbors`` is ``None`` where the score does not depend on k."""

    class_name: str
    coreset_ratio: float
    neighborhood: int
    score: str
    neighbors: int | None


@dataclass(frozen=True)
class _Judged:
    """The test set of a class: embeddings ``[P, D]`` and neighbours ``[P, k]`` per picture."""

    embeddings: list[Tensor]
    nearest: list[Tensor]


def benchmark_scores(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    ratios: Annotated[str, typer.Option(help="Coreset ratios.")] = "0.01,0.1",
    neighborhoods: Annotated[str, typer.Option(help="Sides averaged over; 1 is off.")] = "3,1",
    neighbors: Annotated[str, typer.Option(help="Values of k.")] = "1,3,5,9",
    seed: Annotated[int, typer.Option(help="Seed of coreset and folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Compare every score on every class that has a test set."""
    counts = [int(k) for k in neighbors.split(",")]
    rows: list[dict[str, Any]] = []
    for name in find_classes(data):
        if not labelled_pictures(data, name):
            continue
        for side in (int(text) for text in neighborhoods.split(",")):
            size = ModelSize(height=image_size, width=image_size)
            embedder = PatchEmbedder(backbone, size, weights, neighborhood=side)
            embedder = embedder.to(choose_device(device))
            for ratio in (float(text) for text in ratios.split(",")):
                for case, metrics in _compare(data, name, embedder, ratio, counts, seed):
                    rows.append(asdict(case) | _rounded(metrics))
                    stderr_console().print(rows[-1], markup=False)
    means = means_over_classes(rows)
    results = {
        "backbone": backbone,
        "weights": Path(weights).name if weights else "hub",
        "image_size_px": image_size,
        "fpr_limit": _FPR_LIMIT,
        "seed": seed,
        "means_over_classes": means,
        "cases": rows,
    }
    path = write_result(f"scores-{backbone}", results, out)
    console = Console(highlight=False)
    console.print(_table(means))
    console.print(f"written to {path}")


@torch.inference_mode()
def _compare(
    data: Path, name: str, embedder: PatchEmbedder, ratio: float, counts: list[int], seed: int
) -> Iterator[tuple[Case, Metrics]]:
    features = extract_features(
        good_pictures(data, name).paths,
        embedder,
        batch_size=8,
        seed=seed,
    )
    settings = HeadSettings(
        grid=embedder.grid,
        size=embedder.size,
        score="distance",
        neighbors=max(counts),
        coreset_ratio=ratio,
        seed=seed,
        device=features.projections.device,
    )
    frozen = _statistics(features, settings, counts)
    everything = np.ones(len(features.paths), np.bool_)
    bank = features.rows.gather(choose_bank(features, everything, settings).indices)
    test_set = load_test_set(data, name, embedder.size)
    judged = _search(test_set, embedder, bank, settings)
    for score in SCORES:
        for k in [max(counts)] if score in WITHOUT_K else counts:
            counted = None if score in WITHOUT_K else k
            case = Case(name, ratio, embedder.neighborhood, score, counted)
            yield case, _evaluate(test_set, judged, bank, frozen[k], settings, score, k)


def _statistics(
    features: TrainingFeatures, settings: HeadSettings, counts: list[int]
) -> dict[int, DistanceStatistics]:
    """Frozen statistics of the mean distance for each k, over held-out pictures."""
    everything = np.ones(len(features.paths), np.bool_)
    means: dict[int, list[Tensor]] = {k: [] for k in counts}
    for fold in held_out_banks(features, everything, settings, SilentSteps()):
        head = settings.head(
            features.rows.gather(fold.bank_rows), DistanceStatistics(mean=0.0, std=1.0)
        )
        for image in fold.images:
            embeddings = features.images(image, image + 1).to(settings.device)
            distances = head.influence(embeddings, head.search(embeddings)).distances
            for k in counts:
                means[k].append(distances[:, :k].mean(1).double().cpu())
    pooled = {k: torch.cat(found) for k, found in means.items()}
    return {
        k: DistanceStatistics(mean=float(values.mean()), std=float(values.std(correction=0)))
        for k, values in pooled.items()
    }


def _search(
    test_set: TestSet, embedder: PatchEmbedder, bank: Tensor, settings: HeadSettings
) -> _Judged:
    head = settings.head(bank, DistanceStatistics(mean=0.0, std=1.0))
    embeddings, nearest = [], []
    for picture in test_set.pictures:
        frames = torch.from_numpy(read_frames((picture.path,), embedder.size))
        embedded = embedder(frames.to(settings.device)).flatten(0, 2)
        embeddings.append(embedded)
        nearest.append(head.search(embedded))
    return _Judged(embeddings, nearest)


def _evaluate(
    test_set: TestSet,
    judged: _Judged,
    bank: Tensor,
    frozen: DistanceStatistics,
    settings: HeadSettings,
    score: str,
    k: int,
) -> Metrics:
    head = replace(settings, score=score, neighbors=k).head(bank, frozen)
    scores, maps = [], []
    for embedded, nearest in zip(judged.embeddings, judged.nearest, strict=True):
        image_score, anomaly_map, _ = head.judge(
            embedded.view(1, *settings.grid, -1), nearest[:, :k]
        )
        scores.append(float(image_score[0]))
        maps.append(anomaly_map[0].cpu().numpy())
    return _metrics(test_set, np.array(scores), maps)


def _metrics(test_set: TestSet, scores: np.ndarray, maps: list[np.ndarray]) -> Metrics:
    labels = np.array([picture.is_defective for picture in test_set.pictures])
    images = image_ranking(scores, labels)
    pairs = list(zip(test_set.pictures, maps, strict=True))
    defective = [(m, test_set.masks[p.path]) for p, m in pairs if p.is_defective]
    counts = count_pixels(defective, [m for p, m in pairs if not p.is_defective])
    pixels = pixel_ranking(counts)
    pro = pro_curve(counts, region_overlaps(defective, counts.levels))
    return Metrics(
        image_auroc=images.auroc,
        image_ap=images.ap,
        image_f1_max=images.f1_max,
        pixel_auroc=pixels.auroc,
        pixel_ap=pixels.ap,
        pixel_f1_max=pixels.f1_max,
        pixel_iou_max=pixels.iou_max,
        aupro=aupro(pro, _FPR_LIMIT),
    )


def means_over_classes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each combination but for the class, with the mean of each metric, best image AUROC first."""
    kept = ("coreset_ratio", "neighborhood", "score", "neighbors")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in kept), []).append(row)
    names = [name for name in rows[0] if name not in (*kept, "class_name")]
    means = [
        dict(zip(kept, key, strict=True))
        | {"classes": len(group)}
        | {name: round(statistics.fmean(row[name] for row in group), 5) for name in names}
        for key, group in groups.items()
    ]
    return sorted(means, key=lambda row: (row["coreset_ratio"], -row["image_auroc"]))


def _rounded(metrics: Metrics) -> dict[str, float]:
    return {name: round(value, 5) for name, value in asdict(metrics).items()}


def _table(means: list[dict[str, Any]]) -> Table:
    table = Table(title="means over classes")
    shown = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
    for name in ("ratio", "average", "score", "k", *shown):
        table.add_column(name)
    for row in means:
        table.add_row(
            f"{row['coreset_ratio']:g}",
            "off" if row["neighborhood"] == 1 else f"{row['neighborhood']}x{row['neighborhood']}",
            row["score"],
            "-" if row["neighbors"] is None else str(row["neighbors"]),
            *(f"{row[name]:.4f}" for name in shown),
        )
    return table


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.scores``."""
    run_command(benchmark_scores)


if __name__ == "__main__":
    main()
