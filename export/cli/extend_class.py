"""``export-model --extend``: good pictures added to a model that was exported earlier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchline.export.cli.export_classes import export_class
from patchline.export.exporter import check_target
from patchline.export.extend import (
    deployed_manifest,
    is_recalibrated,
    load_base,
    pictures_to_add,
    settings_of,
)
from patchline.export.making.output import Output
from patchline.export.making.shared_graphs import check_conversions
from patchline.export.precision.again import Job
from patchline.export.state import TrainingState
from patchline.runtime.cli.command import print_warning
from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import check_writable


def check_extend(names: list[str], folder: Path, state: Path | None) -> None:
    """Refuse what makes no sense together with ``--extend``.

    Args:
        names: the classes that are named.
        folder: of the pictures to add.
        state: what ``--state`` was given.

    Raises:
        ConfigurationError: several classes, or ``--state``.
    """
    if state is not None:
        raise ConfigurationError(
            "--state exports a model again as it is, and --extend makes another. Give --out "
            "the folder of the model that is extended"
        )
    if len(set(names)) != 1:
        raise ConfigurationError(
            f"--extend adds the pictures of {folder} to one class, and --cls names "
            f"{', '.join(names)}. Extend them one by one"
        )


def extend_class(
    name: str, folder: Path, fields: dict[str, Any], config: Path | None, output: Output
) -> None:
    """Extend one class, and say what of the deployed model is not carried over.

    Args:
        name: of the class.
        folder: of the pictures to add.
        fields: fields of the settings that were given.
        config: file to name in messages about them.
        output: holds the model, and gets the extended one.

    Raises:
        PatchlineError: as for :func:`patchline.export.extend.load_base`,
            :func:`patchline.export.extend.settings_of` and
            :func:`patchline.export.extend.pictures_to_add`, and as for an export.
    """
    base = load_base(output.folder, name)
    deployed = deployed_manifest(output.folder, base) or base.manifest
    rate = deployed.threshold.false_alarm_rate
    settings = settings_of(base, fields, false_alarm_rate=rate, config=config)
    pictures, known = pictures_to_add(folder, base)
    if known:
        print_warning(f"{known} pictures of {folder} are in the model already and are left out")
    check_writable(output.folder)
    check_target(output.folder, pictures.class_name, settings)
    job = Job(pictures, settings)
    check_conversions([job], output)
    export_class(job, output, [job], base=base)
    for warning in _replaced(deployed, base, fields):
        print_warning(warning)


def _replaced(deployed: Manifest, base: TrainingState, fields: dict[str, Any]) -> Iterator[str]:
    """What the deployed model had and the extended one has not."""
    if deployed.precision != "fp32" and "precision" not in fields:
        yield (
            f"the model was {deployed.precision} and is replaced by one in float32. Convert it "
            f"again: --precision {deployed.precision}, with --data and without --extend"
        )
    # That of a converted model lies on a scale of its own.
    if is_recalibrated(deployed, base.manifest):
        current = deployed.threshold
        yield (
            f"the threshold {current.value:.4g} ({current.rule}) was of the smaller model and is "
            "replaced. Calibrate again: calibrate-threshold --images with pictures of the line"
        )
