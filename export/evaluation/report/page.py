"""The page itself: one self-contained HTML file, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from patchline.export.evaluation.report import figures, tiles
from patchline.export.evaluation.report.gallery import Section, build_gallery
from patchline.export.evaluation.report.panels import chart_panels
from patchline.export.evaluation.result import Evaluation
from patchline.runtime.engine import Engine
from patchline.runtime.files import write_atomically

FILE_NAME = "index.html"


@dataclass(frozen=True)
class ClassReport:
    """What the page shows of one class.

    Attributes:
        evaluation: the figures.
        sections: of the gallery, in order.
    """

    evaluation: Evaluation
    sections: tuple[Section, ...]


def build_class_report(evaluation: Evaluation, engine: Engine) -> ClassReport:
    """Choose the pictures of one class and judge them again for their maps.

    Args:
        evaluation: the class, evaluated with this engine.
        engine: still open.

    Raises:
        ImageReadError: a picture cannot be read any more; it is named.
        EngineError: the engine failed or is closed.
    """
    return ClassReport(evaluation, build_gallery(evaluation, engine))


def write_report(
    classes: Sequence[ClassReport],
    folder: Path,
    *,
    failures: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> Path:
    """Write ``index.html`` into ``folder``, whole or not at all.

    Args:
        classes: in the order of the page.
        folder: made if it does not exist.
        failures: name -> sentence, for classes that could not be evaluated at all.
        now: what the page says when it was made; the present by default.

    Returns:
        The page.

    Raises:
        WriteError: it cannot be written; an older page is untouched.
    """
    path = folder / FILE_NAME
    page = render_report(classes, failures or {}, now or datetime.now().astimezone())
    # File names that are no UTF-8 come as lone surrogates, which cannot be encoded.
    write_atomically(path, page.encode("utf-8", "backslashreplace"))
    return path


def render_report(
    classes: Sequence[ClassReport], failures: Mapping[str, str], now: datetime
) -> str:
    """The page as text; the same input gives the same text."""
    folder = files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["score"] = figures.score_text
    evaluations = [report.evaluation for report in classes]
    return environment.from_string((folder / "page.html").read_text(encoding="utf-8")).render(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        classes=[_view(number, report) for number, report in enumerate(classes, start=1)],
        rows=figures.summary_rows(evaluations),
        mean=figures.mean_row(evaluations) if len(evaluations) > 1 else None,
        failures=failures,
        remarks=any(item.problems or item.notes for item in evaluations) or bool(failures),
        made=now.isoformat(sep=" ", timespec="minutes"),
        engines=sorted({item.engine for item in evaluations}),
        fpr_limits=sorted({item.fpr_limit for item in evaluations}),
        version=version("patchline"),
        heat_colors=tiles.heat_colors(),
        heat_range=tiles.HEAT_RANGE,
        influence_colors=tiles.influence_colors(),
        truth_color=tiles.truth_color(),
    )


@dataclass(frozen=True)
class _ClassView:
    id: str
    evaluation: Evaluation
    found: figures.Count
    false_alarms: figures.Count
    image_auroc: str
    aupro: str
    panels: tuple[object, ...]
    facts: tuple[tuple[str, str], ...]
    kinds: tuple[figures.KindRow, ...]
    sections: tuple[Section, ...]


def _view(number: int, report: ClassReport) -> _ClassView:
    evaluation, name = report.evaluation, f"class-{number}"
    return _ClassView(
        id=name,
        evaluation=evaluation,
        found=figures.found(evaluation),
        false_alarms=figures.false_alarms(evaluation),
        image_auroc=figures.percent(evaluation.metrics.image_auroc),
        aupro=figures.percent(evaluation.metrics.aupro),
        panels=chart_panels(evaluation, name),
        facts=figures.model_facts(evaluation.manifest),
        kinds=figures.kind_rows(evaluation),
        sections=report.sections,
    )
