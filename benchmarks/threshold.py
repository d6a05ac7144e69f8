"""``python -m patchline.benchmarks.threshold``: what the threshold's promise is worth (issue 3).

The good pictures of a class, of its training and its test folder together, are split at random;
the larger part is fitted and calibrated as a user would, by cross-fitting and by a calibration
split, and the rest shows how many good frames really reach the threshold. The test set as it is
published is reported beside it: its good pictures are too few to tell 5 % from 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from patchline.benchmarks.report import write_result
from patchline.calibration.folds import assign_calibration
from patchline.calibration.threshold import Scores, derive_threshold, normal_scores
from patchline.export.backbone import PatchEmbedder
from patchline.export.cross_fit import (
    HeadSettings,
    Images,
    choose_bank,
    cross_fit,
    held_out_statistics,
    judge_images,
)
from patchline.export.datasets import TestPicture, find_classes, good_pictures, labelled_pictures
from patchline.export.features import TrainingFeatures, extract_features
from patchline.export.fit import choose_device
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.contract import ModelSize, NormalScores
from patchline.runtime.progress import SilentSteps

RATES = (0.05, 0.01, 0.001)
MODES = ("cross-fit", "calibration-split")
SEED = 0
"""Of coreset and folds, and of the first random split; the next ones count on."""

_SPLIT = 0.2
_LEFT_OUT = 0.3


@dataclass(frozen=True)
class _Class:
    """All pictures of a class in one row store: training, test good, test defective."""

    name: str
    features: TrainingFeatures
    training: Images
    test_good: Images
    defective: Images

    @property
    def good(self) -> Images:
        return self.training | self.test_good


@dataclass(frozen=True)
class Calibrated:
    """Normal scores of one fit, and what it gives unseen good and defective pictures."""

    normal: NormalScores
    good: Scores
    defective: Scores


def benchmark_threshold(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    coreset_ratio: Annotated[float, typer.Option(help="Coreset ratio.")] = 0.01,
    splits: Annotated[int, typer.Option(min=1, help="Random splits of the good pictures.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Fit, calibrate and count false alarms and finds on pictures the threshold has not seen."""
    size = ModelSize(height=image_size, width=image_size)
    embedder = PatchEmbedder(backbone, size, weights).to(choose_device(device))
    classes: dict[str, Any] = {}
    for name in find_classes(data):
        if labelled := labelled_pictures(data, name):
            one = _embed(data, name, labelled, embedder)
            settings = _settings(embedder, coreset_ratio, one.features)
            classes[name] = {mode: _measure(one, settings, mode, splits) for mode in MODES}
            stderr_console().print({name: classes[name]}, markup=False)
    results = {
        "backbone": backbone,
        "weights": Path(weights).name if weights else "hub",
        "image_size_px": image_size,
        "coreset_ratio": coreset_ratio,
        "score": DEFAULT_SCORE,
        "calibration_split": _SPLIT,
        "left_out_share": _LEFT_OUT,
        "splits": splits,
        "seed": SEED,
        "classes": classes,
    }
    path = write_result(f"threshold-{backbone}", results, out)
    console = Console(highlight=False)
    console.print(_table(classes))
    console.print(f"written to {path}")


def _embed(data: Path, name: str, labelled: list[TestPicture], embedder: PatchEmbedder) -> _Class:
    training = good_pictures(data, name).paths
    features = extract_features(
        (*training, *(picture.path for picture in labelled)),
        embedder,
        batch_size=8,
        seed=SEED,
    )
    kinds = np.array(["training"] * len(training) + [str(p.is_defective) for p in labelled])
    return _Class(name, features, kinds == "training", kinds == "False", kinds == "True")


def _settings(
    embedder: PatchEmbedder, coreset_ratio: float, features: TrainingFeatures
) -> HeadSettings:
    return HeadSettings(
        grid=embedder.grid,
        size=embedder.size,
        score=DEFAULT_SCORE,
        neighbors=9,
        coreset_ratio=coreset_ratio,
        seed=SEED,
        device=features.projections.device,
    )


def _measure(one: _Class, settings: HeadSettings, mode: str, splits: int) -> dict[str, Any]:
    published = [
        calibrate(one.features, one.training, one.test_good, one.defective, settings, mode)
    ]
    repeated = []
    for seed in range(SEED, SEED + splits):
        left_out = np.zeros(len(one.good), np.bool_)
        numbers = np.random.default_rng(seed).permutation(np.flatnonzero(one.good))
        left_out[numbers[: round(_LEFT_OUT * len(numbers))]] = True
        repeated.append(
            calibrate(one.features, one.good & ~left_out, left_out, one.defective, settings, mode)
        )
    return {
        "test_set_as_published": [_count(published, rate) for rate in RATES],
        "random_splits": [_count(repeated, rate) for rate in RATES],
    }


@torch.inference_mode()
def calibrate(
    features: TrainingFeatures,
    fitted: Images,
    good: Images,
    defective: Images,
    settings: HeadSettings,
    mode: str,
) -> Calibrated:
    """Fit some images and judge others, all of one row store.

    Args:
        features: of all images.
        fitted: those that a user would have.
        good: unseen good ones.
        defective: unseen defective ones.
        settings: of the heads.
        mode: one of :data:`MODES`.
    """
    steps = SilentSteps()
    if mode == "cross-fit":
        held_out = cross_fit(features, settings, steps, images=fitted)
        statistics, in_bank = held_out.statistics, fitted
        normal = normal_scores(held_out.image_scores, held_out.map_maxima, "cross-fit")
    else:
        numbers = np.flatnonzero(fitted)
        kept_out = np.zeros(len(fitted), np.bool_)
        kept_out[numbers[assign_calibration(len(numbers), _SPLIT, settings.seed)]] = True
        in_bank = fitted & ~kept_out
        statistics = held_out_statistics(features, in_bank, settings, steps)
    bank = features.rows.gather(choose_bank(features, in_bank, settings).indices)
    head = settings.head(bank, statistics)
    if mode != "cross-fit":
        scores, maxima = judge_images(features, kept_out, head, settings, steps)
        normal = normal_scores(scores, maxima, "calibration-split")
    judged = [judge_images(features, part, head, settings, steps)[0] for part in (good, defective)]
    return Calibrated(normal, *judged)


def _count(fits: list[Calibrated], rate: float) -> dict[str, Any]:
    """Realised rates at the threshold for ``rate``, pooled over fits."""
    thresholds = [derive_threshold(fit.normal, rate) for fit in fits]
    alarms = sum(int((f.good >= t.value).sum()) for f, t in zip(fits, thresholds, strict=True))
    found = sum(int((f.defective >= t.value).sum()) for f, t in zip(fits, thresholds, strict=True))
    good, defective = (sum(len(getattr(f, kind)) for f in fits) for kind in ("good", "defective"))
    return {
        "asked_rate": rate,
        "supported_rate": round(float(np.mean([t.supported_rate for t in thresholds])), 5),
        "calibration_images": round(float(np.mean([len(f.normal.scores) for f in fits])), 1),
        "threshold": round(float(np.mean([t.value for t in thresholds])), 4),
        "interval": [
            round(float(end), 4) for end in np.mean([t.interval or () for t in thresholds], 0)
        ],
        "false_alarms": alarms,
        "good": good,
        "realised_rate": round(alarms / good, 5),
        "found": found,
        "defective": defective,
        "recall": round(found / defective, 5),
    }


def _table(classes: dict[str, Any]) -> Table:
    table = Table(title="realised false-alarm rate and recall, random splits")
    for column in ("class", "mode", "asked", "false alarms", "realised", "recall"):
        table.add_column(column)
    for name, modes in classes.items():
        for mode, measured in modes.items():
            for row in measured["random_splits"]:
                table.add_row(
                    name,
                    mode,
                    f"{100 * row['asked_rate']:g} %",
                    f"{row['false_alarms']} of {row['good']}",
                    f"{100 * row['realised_rate']:.2f} %",
                    f"{row['recall']:.3f}",
                )
    return table


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.threshold``."""
    run_command(benchmark_threshold)


if __name__ == "__main__":
    main()
