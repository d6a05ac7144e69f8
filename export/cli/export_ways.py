"""The three ways of ``export-model``: more pictures for a class, one class, and many.

Each checks what it can before the first fit, so that a wrong name does not show after an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchline.export.cli.call import Call
from patchline.export.cli.export_options import check_one_class
from patchline.export.cli.serving_options import check_serving, place_asked, serve_classes
from patchline.runtime.cli.command import EXIT_ERROR
from patchline.runtime.files import check_writable

if TYPE_CHECKING:
    from patchline.export.serving.found_model import Place


def extend_one(call: Call, folder: Path) -> None:
    """Add the pictures of a folder to the model of a class.

    Raises:
        PatchlineError: the options do not go together, or as for
            :func:`patchline.export.cli.extend_class.extend_class`.
    """
    from patchline.export.cli.extend_class import check_extend, extend_class
    from patchline.export.making.training_checks import check_extended

    output = call.output
    check_extend(call.names, folder, output.state)
    check_one_class(call.ray)
    check_extended(call.fields, is_resumed=output.is_resumed)
    name = call.names[0]
    if call.serving is not None:
        from patchline.export.serving.found_model import place_in

        place = place_asked(call.fields, is_again=True) or place_in(output.folder, name)
        check_serving(call.serving, {name: place})
    extend_class(name, folder, call.fields, call.config, output)
    _serve(call, {name: None})


def export_one(call: Call) -> None:
    """Export one class; its error is that of the call.

    Raises:
        PatchlineError: as for :func:`patchline.export.cli.export_classes.export_classes`.
    """
    from patchline.export.datasets import select_classes

    output = call.output
    selected = select_classes(call.data, call.names)
    check_writable(output.folder)
    from patchline.export.cli.export_classes import export_classes, plan_jobs
    from patchline.export.making.training_checks import check_resumed

    jobs = plan_jobs(selected, call.fields, call.config, output.state, output.folder)
    places = {job.pictures.class_name: job.settings.bank for job in jobs}
    if call.serving is not None:
        check_serving(call.serving, places)
    check_resumed(jobs, output.folder, is_resumed=output.is_resumed)
    export_classes(jobs, output)
    _serve(call, places)


def export_many(call: Call) -> None:
    """Export several classes; one that fails does not keep the others from being made.

    Raises:
        PatchlineError: as for :func:`patchline.export.cli.export_fleet.export_fleet`.
        typer.Exit: some of the classes failed.
    """
    output = call.output
    check_writable(output.folder)
    from patchline.export.cli.export_fleet import class_names, export_fleet

    if call.serving is not None:
        is_again = output.state is not None or "precision" in call.fields
        place = place_asked(call.fields, is_again=is_again)
        check_serving(call.serving, dict.fromkeys(class_names(call), place))
    made = export_fleet(call)
    _serve(call, made.places)
    if made.failures:
        raise typer.Exit(EXIT_ERROR)


def _serve(call: Call, places: Mapping[str, Place | None]) -> None:
    if call.serving is not None and places:
        serve_classes(call.serving, places, call.output.folder, as_json=call.output.as_json)
