"""``calibrate-threshold``: a new threshold, from pictures of the line or for another rate."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchline.runtime.camera.native_logs import silence_native_logs
from patchline.runtime.cli.command import Provider, print_warning, run_command, stderr_console
from patchline.runtime.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from patchline.calibration.line import Drift
    from patchline.runtime.contract import LabelledThreshold, Manifest, NormalScores
    from patchline.runtime.engine import Engine
    from patchline.runtime.errors import ImageReadError


_DISTINCT_SHARE = 0.9


def calibrate_threshold(
    model: Annotated[Path, typer.Option(help="Exported model (.onnx, with its .json).")],
    bank: Annotated[
        Path | None,
        typer.Option(help="Bank of the product (.bank), for a model exported without one."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of good pictures of the line; without it, the scores that the manifest "
            "keeps are used."
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Expected share of good frames at or above.  [default: the manifest's]"),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="Folder of good/ and defect folders: adds the threshold of largest F1."),
    ] = None,
    provider: Annotated[
        Provider, typer.Option(help="Where ONNX Runtime computes.")
    ] = Provider.AUTO,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="CPU threads per inference.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be written.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find a threshold with an expected false-alarm rate and write it into the manifest.

    The manifest lies beside the model, or in the bank where the model has none of its own.
    """
    silence_native_logs()  # before the first import of cv2
    _check_extra()
    if images is None and false_alarm_rate is None and labelled is None:
        raise ConfigurationError(
            "nothing to do: give --images with good pictures of the line, --false-alarm-rate, "
            "or --labelled"
        )

    from patchline.calibration.line import drift_of, recalibrated
    from patchline.calibration.threshold import LARGEST_RATE, SMALLEST_RATE, caveat
    from patchline.runtime.engine import open_engine

    if false_alarm_rate is not None and not SMALLEST_RATE <= false_alarm_rate <= LARGEST_RATE:
        raise ConfigurationError(
            f"the false-alarm rate is {false_alarm_rate}, expected a share of good frames from "
            f"{SMALLEST_RATE:g} to {LARGEST_RATE:g}, such as 0.01"
        )
    with open_engine(model, provider=provider.value, threads=threads, bank=bank) as engine:
        before = engine.manifest
        normal = _score_line(engine, images, skip_unreadable) if images else None
        f1_max = _score_labelled(engine, labelled) if labelled else None
    after = recalibrated(before, normal, false_alarm_rate, f1_max)
    drift = drift_of(normal, before) if normal else None
    _warn_of_drift(drift)
    if normal is not None:
        _warn_of_copies(normal)
    warning = caveat(after.threshold, len(after.normal_scores.scores))
    if warning is not None:
        print_warning(warning)
    if not dry_run:
        _save(after, model, bank)
    files = {"model": str(model)} | ({"bank": str(bank)} if bank else {})
    _report(files, before, after, drift, written=not dry_run, as_json=as_json)


def _check_extra() -> None:
    """Raises: MissingExtraError: scipy is not installed."""
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError(
            'calibrate-threshold needs scipy. Install it with: pip install "patchline[calibration]"'
        )


def _save(manifest: Manifest, model: Path, bank: Path | None) -> None:
    """Write the manifest where it came from: beside the model, or into the bank."""
    from patchline.runtime.bank import load_bank, save_bank
    from patchline.runtime.contract import manifest_path

    if bank is None:
        manifest.save(manifest_path(model))
    else:
        save_bank(load_bank(bank).with_manifest(manifest), bank)


def _score_line(engine: Engine, folder: Path, skip_unreadable: bool) -> NormalScores:
    from patchline.calibration.line import score_line
    from patchline.runtime.camera.pictures import list_pictures
    from patchline.runtime.progress import ConsoleSteps

    if not folder.is_dir():
        raise ConfigurationError(f"--images {folder} is no folder; expected one of good pictures")
    paths = list_pictures(folder)
    with ConsoleSteps(stderr_console()).step("Scoring good pictures", len(paths)) as advance:
        return score_line(engine, paths, advance, _warn_of_skipped if skip_unreadable else None)


def _score_labelled(engine: Engine, folder: Path) -> LabelledThreshold:
    from patchline.calibration.labelled import labelled_folder
    from patchline.calibration.line import score_labelled
    from patchline.runtime.progress import ConsoleSteps

    pictures = labelled_folder(folder)
    with ConsoleSteps(stderr_console()).step("Scoring labelled pictures", len(pictures)) as advance:
        return score_labelled(engine, pictures, advance)


def _warn_of_drift(drift: Drift | None) -> None:
    if drift is None or not drift.is_large:
        return
    print_warning(
        f"the pictures of the line score {drift.median / drift.median_before:.1f} times as high "
        f"as those of the fit (median {drift.median:.4g} against {drift.median_before:.4g}). If "
        "they are good parts under another light or camera, defects will be harder to tell: add "
        "such pictures with export-model --extend, then calibrate again"
    )


def _warn_of_copies(normal: NormalScores) -> None:
    distinct, count = len(set(normal.scores)), len(normal.scores)
    if distinct < _DISTINCT_SHARE * count:
        print_warning(
            f"the {count} pictures of the line have only {distinct} different scores: copies, or "
            "frames of a part that stands still, count once. The false-alarm rate is that of fewer "
            "pictures than it seems; use pictures of different parts"
        )


def _report(
    files: dict[str, str],
    before: Manifest,
    after: Manifest,
    drift: Drift | None,
    *,
    written: bool,
    as_json: bool,
) -> None:
    if as_json:
        result = {
            **files,
            "written": written,
            "images": len(after.normal_scores.scores),
            "threshold_before": before.threshold.value,
            "threshold": after.threshold.model_dump(mode="json"),
        }
        typer.echo(json.dumps(result, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text(files.get("bank", files["model"]))
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in _rows(before, after, drift):
        table.add_row(name, Text(value))
    console = Console(highlight=False)
    console.print(table)
    if not written:
        console.print("nothing was written (--dry-run)")


def _rows(before: Manifest, after: Manifest, drift: Drift | None) -> list[tuple[str, str]]:
    new, old = after.threshold, before.threshold
    low, high = new.interval or (new.value, new.value)
    rows = [
        ("threshold before", f"{old.value:.4g}: {old.rule}"),
        ("threshold now", f"{new.value:.4g}: {new.rule}"),
        ("95 % interval", f"{low:.4g} to {high:.4g}"),
    ]
    if new.supported_rate is not None:
        supported = f"{100 * new.supported_rate:.3g} %, at {new.supported_value or 0:.4g}"
        rows.append(("lowest supported rate", supported))
    if drift is not None:
        alarms = f"{drift.false_alarms} of {drift.images}"
        rows.insert(1, ("  of the line's good pictures", f"{alarms} reach it"))
    if new.f1_max is not None:
        best = new.f1_max
        rows.append(
            (
                "largest F1, for comparison",
                f"{best.value:.4g}: F1 {best.f1:.3f} on {best.good} good and {best.defective} "
                "defective pictures (use it with run-camera --threshold)",
            )
        )
    return rows


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")


def main() -> None:
    """Entry point of ``calibrate-threshold``."""
    run_command(calibrate_threshold)


if __name__ == "__main__":
    main()
