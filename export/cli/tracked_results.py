"""What a tracker is told of an exported class: figures, test metrics, heat maps, the model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from patchline.calibration.judge import judge_pictures
from patchline.export.datasets import GoodPictures, labelled_folder, labelled_pictures
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.report import choice
from patchline.export.evaluation.result import Evaluation, Metrics, ScoredPicture
from patchline.export.making.make_class import Made
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.precision.again import Job
from patchline.export.tracking.base import Tracker
from patchline.export.tracking.examples import fixed_heat_maps, heat_maps
from patchline.export.tracking.metrics_log import MetricsLog, values_of
from patchline.runtime.bank import load_bank
from patchline.runtime.cli.command import print_warning
from patchline.runtime.contract import Manifest, load_manifest, manifest_path
from patchline.runtime.engine import Engine, open_engine
from patchline.runtime.errors import PatchlineError

_CHOICES: Sequence[tuple[choice.Choice, int]] = (
    (choice.missed_defects, 2),
    (choice.false_alarms, 2),
    (choice.clearest_finds, 3),
    (choice.quietest_good, 1),
)
"""Which pictures are shown, and how many of each kind at most."""


def track_results(
    tracker: Tracker, job: Job, made: Made, log: MetricsLog, steps: TimedSteps
) -> None:
    """Tell a tracker everything that is known of a class after its export.

    A class without test pictures has no metrics; what keeps others from being evaluated is a
    warning, since the model is there already.

    Args:
        tracker: is told.
        job: the class; its test pictures are beside those it was fitted on.
        made: its files.
        log: takes its metrics, and keeps them for the mean of the classes after it.
        steps: shows progress, and knows how long the others took.
    """
    manifest = _manifest(made)
    figures = {**steps.times, **_figures(manifest)}
    if made.epochs is None:  # else the step would be one of the training's batches
        tracker.log(figures, step=0)
    tracker.summary(figures)
    metrics = _metrics(tracker, job.pictures, made, steps)
    if metrics is not None:
        log.classes[log.class_name] = metrics
        log.tell(metrics, step=made.epochs or 0)
    tracker.model(made.bank or made.model, metadata=_metadata(manifest, made, metrics))


def _manifest(made: Made) -> Manifest:
    if made.bank is not None:
        return load_bank(made.bank).manifest
    return load_manifest(manifest_path(made.model))


def _metadata(manifest: Manifest, made: Made, metrics: Metrics | None) -> dict[str, Any]:
    return {
        "class": manifest.class_name,
        "method": manifest.method,
        "precision": manifest.precision,
        "epoch": made.epochs,
        "threshold": manifest.threshold.value,
        **(values_of(metrics) if metrics else {}),
    }


def _figures(manifest: Manifest) -> dict[str, float]:
    scores = manifest.normal_scores.scores
    figures = {
        "threshold": manifest.threshold.value,
        "normal_scores/mean": sum(scores) / len(scores),
        "normal_scores/largest": max(scores),
    }
    if manifest.memory_bank is not None:
        figures["memory_bank/rows"] = float(manifest.memory_bank.rows)
    return figures


def _metrics(
    tracker: Tracker, pictures: GoodPictures, made: Made, steps: TimedSteps
) -> Metrics | None:
    """Metrics over the test pictures of a class; ``None`` where there are none."""
    folder, name = labelled_folder(pictures), pictures.class_name
    if folder is None:
        return None
    total = len(labelled_pictures(folder.parent, folder.name))
    try:
        with open_engine(made.model, bank=made.bank) as engine:
            with steps.step(f"Judging {total} test pictures", total) as advance:
                evaluation = evaluate_class(
                    engine, folder.parent, class_name=folder.name, advance=advance
                )
            _track_examples(tracker, made, evaluation, engine, name)
    except PatchlineError as error:
        print_warning(f"{name} is exported, and not evaluated: {error}")
        return None
    for problem in evaluation.problems:
        print_warning(f"{name}: {problem}")
    return evaluation.metrics


def _track_examples(
    tracker: Tracker, made: Made, evaluation: Evaluation, engine: Engine, name: str
) -> None:
    manifest, judge = evaluation.manifest, functools.partial(judge_pictures, engine)
    size, threshold = manifest.model_size, manifest.threshold.map_value
    chosen = [item.picture for item in _chosen(evaluation)]
    telling = heat_maps(judge, chosen, size, threshold)
    tracker.images(f"examples/{name}", telling, step=made.epochs or 0)
    if made.epochs is not None:  # the last of those that were shown while it was trained
        fixed = fixed_heat_maps(judge, evaluation.pictures, size)
        tracker.images(f"examples/{name}/fixed", fixed, step=made.epochs)


def _chosen(evaluation: Evaluation) -> list[ScoredPicture]:
    threshold = evaluation.manifest.threshold.value
    chosen = [
        item for choose, most in _CHOICES for item in choose(evaluation.pictures, threshold)[:most]
    ]
    return list(dict.fromkeys(chosen))
