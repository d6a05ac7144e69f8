"""What ``evaluate-model`` prints on stdout: a table for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import typer

from patchline.export.evaluation.mean import mean_metrics
from patchline.export.evaluation.result import Evaluation, Metrics

if TYPE_CHECKING:
    from rich.table import Table

_NONE = "–"  # noqa: RUF001  # an en dash, as in any printed table
_WIDEST = 1000
_HEADINGS = {
    "image_auroc": "image\nAUROC",
    "image_ap": "\nAP",
    "image_f1_max": "\nF1max",
    "pixel_auroc": "pixel\nAUROC",
    "pixel_ap": "\nAP",
    "pixel_f1_max": "\nF1max",
    "pixel_iou_max": "\nIoUmax",
    "aupro": "\nAUPRO",
}


@dataclass(frozen=True)
class ClassResult:
    """One class of a run.

    Attributes:
        name: the class.
        evaluation: ``None`` where it failed before there were figures.
        error: the sentence, where it failed.
    """

    name: str
    evaluation: Evaluation | None
    error: str | None

    @property
    def metrics(self) -> Metrics:
        """The figures; all ``None`` where it failed."""
        return self.evaluation.metrics if self.evaluation else Metrics()

    @property
    def problems(self) -> list[str]:
        """What keeps it from being whole."""
        found = list(self.evaluation.problems) if self.evaluation else []
        return found + ([self.error] if self.error is not None else [])

    @property
    def notes(self) -> list[str]:
        """What is simply not there."""
        return list(self.evaluation.notes) if self.evaluation else []

    @property
    def is_whole(self) -> bool:
        """Whether nothing went wrong."""
        return not self.problems


def print_results(results: Sequence[ClassResult], *, as_json: bool) -> None:
    """Print all classes and their mean."""
    if as_json:
        typer.echo(json.dumps(_document(results), indent=2, allow_nan=False, ensure_ascii=False))
        return
    from rich.console import Console

    table = _table(results)
    console = Console(highlight=False)
    # A table that is piped or on a narrow terminal keeps its lines whole.
    anything = console.options.update(max_width=_WIDEST)
    console.width = max(console.width, console.measure(table, options=anything).maximum)
    console.print(table)


def _document(results: Sequence[ClassResult]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "classes": {result.name: asdict(result.metrics) for result in results},
        "mean": asdict(mean_metrics(result.metrics for result in results)),
    }
    for key in ("problems", "notes"):
        said = {result.name: getattr(result, key) for result in results if getattr(result, key)}
        if said:
            document[key] = said
    return document


def _table(results: Sequence[ClassResult]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nclass", no_wrap=True)
    for heading in (*_HEADINGS.values(), "defects\nfound", "false\nalarms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(Text(result.name), *_figures(result.metrics), *_alarms(result.evaluation))
    if len(results) > 1:
        table.add_section()
        counted = sum(result.metrics != Metrics() for result in results)
        label = "mean" if counted == len(results) else f"mean of {counted}"
        table.add_row(label, *_figures(mean_metrics(result.metrics for result in results)))
    return table


def _figures(metrics: Metrics) -> list[str]:
    values = [getattr(metrics, field.name) for field in fields(Metrics)]
    return [_NONE if value is None else f"{value:.4f}" for value in values]


def _alarms(evaluation: Evaluation | None) -> tuple[str, str]:
    if evaluation is None:
        return _NONE, _NONE
    return (
        _of(evaluation.found, evaluation.count(defective=True)),
        _of(evaluation.false_alarms, evaluation.count(defective=False)),
    )


def _of(part: int, whole: int) -> str:
    return f"{part}/{whole}" if whole else _NONE
