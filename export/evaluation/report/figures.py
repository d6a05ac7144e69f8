"""What the tables of the report say: figures as text, a dash where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from patchline.export.evaluation.mean import mean_metrics
from patchline.export.evaluation.result import Evaluation, Metrics
from patchline.runtime.contract import Distillation, Manifest, Threshold

NONE = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Count:
    """Some of a number of pictures.

    Attributes:
        some: how many.
        of: of how many; 0 where there are none.
    """

    some: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1; 0 where there are no pictures."""
        return self.some / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.some} of {self.of}" if self.of else NONE


@dataclass(frozen=True)
class SummaryRow:
    """One class, or the mean of all; ``metrics`` in the order of :class:`Metrics`, in percent."""

    name: str
    metrics: tuple[str, ...]
    found: Count
    false_alarms: Count


@dataclass(frozen=True)
class KindRow:
    """The pictures of one folder of the test set.

    Attributes:
        kind: name of the folder.
        is_defective: whether its pictures are.
        alarms: at or above the threshold.
        lowest: score; like the two below, as text.
        median: score.
        highest: score.
    """

    kind: str
    is_defective: bool
    alarms: Count
    lowest: str
    median: str
    highest: str

    @property
    def wrong(self) -> int:
        """Defects missed, or false alarms."""
        return self.alarms.of - self.alarms.some if self.is_defective else self.alarms.some


def percent(value: float | None) -> str:
    """A share 0 to 1 in percent with two digits, without the sign."""
    return NONE if value is None else f"{100 * value:.2f}"


def score_text(value: float) -> str:
    """A score or threshold with four digits, also where the last are 0."""
    return f"{value:#.4g}".rstrip(".")


def found(evaluation: Evaluation) -> Count:
    """Defective pictures at or above the threshold."""
    return Count(evaluation.found, evaluation.count(defective=True))


def false_alarms(evaluation: Evaluation) -> Count:
    """Good pictures at or above the threshold."""
    return Count(evaluation.false_alarms, evaluation.count(defective=False))


def summary_rows(evaluations: Sequence[Evaluation]) -> tuple[SummaryRow, ...]:
    """A row per class."""
    return tuple(
        SummaryRow(
            evaluation.manifest.class_name,
            _metric_texts(evaluation.metrics),
            found(evaluation),
            false_alarms(evaluation),
        )
        for evaluation in evaluations
    )


def mean_row(evaluations: Sequence[Evaluation]) -> SummaryRow:
    """The mean of every metric over the classes that have it; pictures are counted together."""
    counts = [(found(item), false_alarms(item)) for item in evaluations]
    return SummaryRow(
        "mean",
        _metric_texts(mean_metrics([item.metrics for item in evaluations])),
        _together([of_defects for of_defects, _ in counts]),
        _together([of_good for _, of_good in counts]),
    )


def kind_rows(evaluation: Evaluation) -> tuple[KindRow, ...]:
    """A row per folder of the test set, in the order of the pictures."""
    threshold = evaluation.manifest.threshold.value
    scores: dict[tuple[str, bool], list[float]] = {}
    for item in evaluation.pictures:
        kind = item.picture.defect, item.picture.is_defective
        scores.setdefault(kind, []).append(item.score)
    return tuple(
        KindRow(
            kind,
            is_defective,
            Count(sum(score >= threshold for score in of_kind), len(of_kind)),
            score_text(min(of_kind)),
            score_text(float(np.median(of_kind))),
            score_text(max(of_kind)),
        )
        for (kind, is_defective), of_kind in scores.items()
    )


def model_facts(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Pairs of name and value: what the model is and how its threshold was found."""
    training, size = manifest.training_set, manifest.model_size
    skipped = training.skipped_unreadable
    return (
        ("Backbone", f"{manifest.backbone.name}, {' + '.join(manifest.backbone.layers)}"),
        ("Frames", f"{size.height} {_TIMES} {size.width} px (height {_TIMES} width)"),
        *_method_facts(manifest),
        ("Precision", manifest.precision),
        (
            "Training pictures",
            f"{training.images:,}" + (f", {skipped} unreadable left out" if skipped else ""),
        ),
        *_threshold_facts(manifest.threshold),
    )


def _method_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What was learnt of good pictures, and what is made a score of it."""
    bank, training = manifest.memory_bank, manifest.distillation
    facts, k = [], ""
    if bank is not None:
        facts.append(("Memory bank", f"{bank.rows:,} rows {_TIMES} {bank.dimension:,}"))
        k = f", k = {bank.neighbors}"
    if training is not None:
        facts.append(("Student", _student(training)))
    return [*facts, ("Score", f"{manifest.score}{k} ({manifest.method})")]


def _student(training: Distillation) -> str:
    """How a student was trained, in a line."""
    noise = f", noise up to {training.noise.largest:g}" if training.noise else ""
    epochs = f"{training.epochs:,} epoch{'s' if training.epochs > 1 else ''}"
    return f"{epochs}{noise}, loss {training.loss:.3g}"


def _threshold_facts(threshold: Threshold) -> list[tuple[str, str]]:
    facts = [
        ("Threshold", score_text(threshold.value)),
        ("Threshold rule", threshold.rule),
        ("Expected false-alarm rate", f"{100 * threshold.false_alarm_rate:.3g} %"),
    ]
    if threshold.interval is not None:
        low, high = threshold.interval
        facts.append(("95 % interval of the threshold", f"{score_text(low)} to {score_text(high)}"))
    if threshold.supported_rate is not None:
        rate = f"{100 * threshold.supported_rate:.3g} %"
        facts.append(("Lowest rate its pictures support", rate))
    return facts


def _metric_texts(metrics: Metrics) -> tuple[str, ...]:
    return tuple(percent(getattr(metrics, field.name)) for field in fields(metrics))


def _together(counts: Sequence[Count]) -> Count:
    return Count(sum(count.some for count in counts), sum(count.of for count in counts))
