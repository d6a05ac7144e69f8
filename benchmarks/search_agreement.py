"""``python -m patchline.benchmarks.search_agreement``: what pruned search changes.

Each class is fitted once per coreset ratio and exported with either search, and both files judge
its test set: figures, verdict by verdict, and the largest change of a score. An approximate search
may be the default only where figures and verdicts stay.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchline.benchmarks.report import write_result
from patchline.export.config import FitSettings
from patchline.export.datasets import find_classes, good_pictures, labelled_pictures
from patchline.export.describe import describe
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.result import Evaluation
from patchline.export.fit import FittedModel, fit
from patchline.export.onnx_graph import save_onnx
from patchline.export.precision.form import Form
from patchline.export.precision.masked import MaskedModel
from patchline.export.pruned import default_plan
from patchline.export.search import compare_searches
from patchline.runtime.cli.command import print_warning, run_command, stderr_console
from patchline.runtime.contract import Manifest, PrunedSearch
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import ConsoleSteps, Steps

_METRICS = ("image_auroc", "pixel_auroc", "aupro")


def benchmark_search_agreement(
    data: Annotated[Path, typer.Option(help="Folder of class folders in MVTec layout.")],
    backbone: Annotated[str, typer.Option(help="timm backbone.")] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Weights file, or random.")] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    ratio: Annotated[
        list[float] | None, typer.Option(help="Coreset ratios.  [default: 0.01, 0.1]")
    ] = None,
    plan: Annotated[
        list[str] | None,
        typer.Option(help="Coordinates:candidates.  [default: the exporter's]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of coreset and folds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Export every labelled class with either search and compare what the files say."""
    steps = ConsoleSteps(stderr_console())
    plans = [_plan_of(text) for text in plan or []]
    size = (image_size, image_size)
    cases = []
    for name in (name for name in find_classes(data) if labelled_pictures(data, name)):
        for share in ratio or [0.01, 0.1]:
            settings = FitSettings(
                backbone=backbone, weights=weights, image_size=size, coreset_ratio=share, seed=seed
            )
            pictures = good_pictures(data, name)
            fitted = fit(pictures, settings, steps, lambda error: print_warning(str(error)))
            chosen = plans or [default_plan(fitted.memory_bank.shape[1], settings.neighbors)]
            case = _case(fitted, settings, chosen, data, steps)
            cases.append({"class": name, "coreset_ratio": share, **case})
    results = {
        "backbone": backbone,
        "weights": Path(weights).name if weights else "hub",
        "image_size_px": image_size,
        "seed": seed,
        "cases": cases,
    }
    path = write_result(f"search-agreement-{backbone}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _case(
    fitted: FittedModel,
    settings: FitSettings,
    plans: Sequence[PrunedSearch],
    data: Path,
    steps: Steps,
) -> dict[str, Any]:
    form = Form(fitted.detector)
    manifest = describe(fitted, settings, None)
    exact = _evaluate(form, manifest, data, steps)
    return {
        "bank_rows": len(fitted.memory_bank),
        "threshold": round(fitted.threshold.value, 5),
        "exact": _figures(exact),
        "pruned": [
            _found(fitted, form, plan, steps)
            | _beside(exact, _evaluate(replace(form, search=plan), manifest, data, steps))
            for plan in plans
        ],
    }


def _evaluate(form: Form, manifest: Manifest, data: Path, steps: Steps) -> Evaluation:
    """What the graph of a form, in ONNX Runtime, says of the class's test set."""
    with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(form.embedded(), path)
        count = len(labelled_pictures(data, manifest.class_name))
        with (
            MaskedModel(path, {}, manifest) as engine,
            steps.step(f"Judging {manifest.class_name}", count) as advance,
        ):
            return evaluate_class(engine, data, advance=advance)


def _figures(evaluation: Evaluation) -> dict[str, float]:
    values = asdict(evaluation.metrics)
    return {name: round(values[name], 6) for name in _METRICS if values[name] is not None}


def _found(fitted: FittedModel, form: Form, plan: PrunedSearch, steps: Steps) -> dict[str, Any]:
    found, verdicts = compare_searches(fitted, form, plan, steps)
    return {
        "leading_coordinates": plan.leading,
        "candidates": plan.candidates,
        "good_pictures_without_own_rows": {**found.model_dump(), "verdicts_changed": verdicts},
    }


def _beside(exact: Evaluation, pruned: Evaluation) -> dict[str, Any]:
    """The pruned search's figures, and what it changes, picture by picture."""
    threshold = exact.manifest.threshold.value
    pairs = [(a.score, b.score) for a, b in zip(exact.pictures, pruned.pictures, strict=True)]
    return {
        **_figures(pruned),
        "pictures": len(pairs),
        "verdicts_changed": sum((a >= threshold) != (b >= threshold) for a, b in pairs),
        "largest_score_change_relative": round(max(abs(a - b) / abs(a) for a, b in pairs), 7),
    }


def _plan_of(text: str) -> PrunedSearch:
    """``94:32`` -> 94 leading coordinates, 32 candidates.

    Raises:
        ConfigurationError: another form.
    """
    match = re.fullmatch(r"([1-9]\d{0,5}):([1-9]\d{0,5})", text)
    if match is None:
        raise ConfigurationError(f"plan is {text!r}, expected coordinates:candidates as in 94:32")
    return PrunedSearch(leading=int(match[1]), candidates=int(match[2]))


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.search_agreement``."""
    run_command(benchmark_search_agreement)


if __name__ == "__main__":
    main()
