"""``evaluate-model``: exported models over labelled test sets, every metric of the field."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import Provider, print_error, run_command, stderr_console
from patchline.runtime.errors import ConfigurationError, MissingExtraError, PatchlineError
from patchline.runtime.files import check_writable

if TYPE_CHECKING:
    from patchline.export.cli.evaluation_table import ClassResult
    from patchline.export.cli.model_files import ModelFiles
    from patchline.runtime.progress import Steps

_EXTRA = ("scipy", "sklearn")
_REPORT_EXTRA = ("jinja2", "matplotlib")


def evaluate_model(
    model: Annotated[
        list[Path],
        typer.Option(metavar="FILE...", help="Exported .onnx files, or a folder of them."),
    ],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    bank: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", help="Banks (.bank), for a model exported without one."),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder of class folders: NAME/test/*, NAME/ground_truth/*.")
    ] = Path("data"),
    cls: Annotated[
        str | None,
        typer.Option("--cls", metavar="NAME", help="Judge this class.  [default: the model's own]"),
    ] = None,
    fpr_limit: Annotated[
        float, typer.Option(help="False-positive rate up to which AUPRO integrates, in (0, 1].")
    ] = 0.3,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a report with pictures.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option(help="Where ONNX Runtime computes.")
    ] = Provider.AUTO,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.  [default: one per core]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Compare what exported models say with the labels and masks of a test set."""
    silence_native_logs()  # before the first import of cv2
    _check_extra(with_report=report is not None)

    from patchline.export.cli.evaluation_table import print_results
    from patchline.export.cli.model_files import models_by_class
    from patchline.export.evaluation.aupro import check_fpr_limit
    from patchline.runtime.bank import BANK_SUFFIX
    from patchline.runtime.progress import ConsoleSteps

    check_fpr_limit(fpr_limit)
    # A word that follows an option's first belongs to it by what it is.
    rest = more or []
    banks = [*(bank or []), *(path for path in rest if path.suffix == BANK_SUFFIX)]
    models = models_by_class([*model, *(path for path in rest if path not in banks)], banks)
    if cls is not None:
        models = {cls: _only(models)}
    _check_data(data)
    if report is not None:
        check_writable(report)
    steps = ConsoleSteps(stderr_console())
    options = {"provider": provider.value, "threads": threads}
    results: list[ClassResult] = []
    pages: list[Any] = []
    for name, files in models.items():
        result = _evaluate(name, files, data, fpr_limit, options, steps, pages if report else None)
        results.append(result)
    print_results(results, as_json=as_json)
    if report is not None:
        failures = {result.name: result.error for result in results if result.error}
        _write_report(pages, report, failures)
    if not all(result.is_whole for result in results):
        raise typer.Exit(1)


def _check_extra(*, with_report: bool) -> None:
    """Raises: MissingExtraError: this install has no metrics."""
    needed = _EXTRA + (_REPORT_EXTRA if with_report else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"evaluate-model needs {', '.join(missing)}. Install it with: "
            'pip install "patchline[evaluation]"'
        )


def _only(models: dict[str, ModelFiles]) -> ModelFiles:
    if len(models) != 1:
        raise ConfigurationError(
            f"--cls names one class folder for one model, and --model gives {len(models)}. Leave "
            "--cls out to judge each model on its own class"
        )
    return next(iter(models.values()))


def _check_data(data: Path) -> None:
    from patchline.export.datasets import find_classes

    find_classes(data)  # for what it refuses


def _evaluate(
    name: str,
    files: ModelFiles,
    data: Path,
    fpr_limit: float,
    options: dict[str, Any],
    steps: Steps,
    pages: list[Any] | None,
) -> ClassResult:
    """Evaluate one class; what goes wrong is said here, and the next class gets its turn."""
    from patchline.export.cli.evaluation_table import ClassResult
    from patchline.export.datasets import labelled_pictures
    from patchline.export.evaluation.evaluate import evaluate_class
    from patchline.runtime.engine import open_engine

    evaluation = None
    try:
        with open_engine(files.model, bank=files.bank, **options) as engine:
            total = len(labelled_pictures(data, name))
            with steps.step(f"{name}: judging {total} pictures", total) as advance:
                evaluation = evaluate_class(
                    engine, data, class_name=name, fpr_limit=fpr_limit, advance=advance
                )
            if pages is not None:
                from patchline.export.evaluation.report.page import build_class_report

                pages.append(build_class_report(evaluation, engine))
    except PatchlineError as error:
        print_error(f"{name}: {error}")
        return ClassResult(name, evaluation, str(error))
    for problem in evaluation.problems:
        print_error(f"{name}: {problem}")
    for note in evaluation.notes:
        stderr_console().print(f"{name}: {note}", markup=False, soft_wrap=True)
    return ClassResult(name, evaluation, None)


def _write_report(pages: list[Any], folder: Path, failures: dict[str, str]) -> None:
    from patchline.export.evaluation.report.page import write_report

    path = write_report(pages, folder, failures=failures)
    stderr_console().print(f"report: {path}", markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``evaluate-model``."""
    run_command(evaluate_model)


if __name__ == "__main__":
    main()
