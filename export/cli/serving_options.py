"""``--serve`` of ``export-model``: the server that gets the classes of a call, and its report."""

from __future__ import annotations

import enum
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchline.runtime.cli.command import EXIT_ERROR, print_error
from patchline.runtime.errors import ConfigurationError, PatchlineError
from patchline.runtime.files import check_writable

if TYPE_CHECKING:
    from patchline.export.serving.found_model import FoundModel, Place


class ServeName(str, enum.Enum):
    """A server that models are laid out for."""

    TRITON = "triton"
    DEEPSTREAM = "deepstream"


@dataclass(frozen=True)
class Serving:
    """What was asked for.

    Attributes:
        server: that gets the models.
        folder: of its files.
        is_only: whether models that are there are served, and nothing is fitted.
        is_plan: whether Triton gets the plan beside a model instead of the model.
    """

    server: ServeName
    folder: Path
    is_only: bool
    is_plan: bool


def serving_of(
    server: ServeName | None, folder: Path | None, *, is_only: bool, is_plan: bool
) -> Serving | None:
    """What the options ask for; ``None`` where they ask for no server.

    Raises:
        ConfigurationError: options that go with another one which is not there.
    """
    if server is None:
        given = {"--serve-dir": folder, "--only-serve": is_only, "--serve-plan": is_plan}
        names = [name for name, value in given.items() if value]
        if names:
            raise ConfigurationError(
                f"{', '.join(names)} would do nothing without a server: add --serve triton or "
                "--serve deepstream"
            )
        return None
    if is_plan and server is not ServeName.TRITON:
        raise ConfigurationError(
            "--serve-plan is Triton's: nvinfer feeds floats, which a plan of the exported model "
            "does not take, and builds its own. Leave it out"
        )
    if is_plan and not is_only:
        raise ConfigurationError(
            "--serve-plan serves a plan that build-engine made of a model on the server's GPU, so "
            "that the model is there already: add --only-serve"
        )
    return Serving(server, folder or Path("models") / server.value, is_only, is_plan)


def place_asked(fields: Mapping[str, Any], *, is_again: bool) -> Place | None:
    """Where the banks of a call's classes will be; ``None`` where each class's state says it.

    Args:
        fields: of the settings, as they were given.
        is_again: whether models are made again from a state, which may be of another place.
    """
    from patchline.export.config import FitSettings

    default = None if is_again else FitSettings.model_fields["bank"].default
    place: Place | None = fields.get("bank", default)
    # Any other is refused with the settings.
    return place if place in ("embedded", "external") else None


def check_serving(serving: Serving, places: Mapping[str, Place | None]) -> None:
    """Refuse before the first fit what would be refused after it.

    Args:
        serving: what was asked for.
        places: class name -> where its bank will be; ``None`` where that is not known yet.

    Raises:
        ConfigurationError: a class has the name of another's model in the repository.
        WriteError: the folder cannot be written to.
    """
    _check_folders(serving)
    if serving.server is ServeName.TRITON:
        from patchline.export.serving.triton import check_apart, check_name

        check_apart(places)
        for name, place in places.items():
            check_name(serving.folder, name, place)


def _check_folders(serving: Serving) -> None:
    check_writable(serving.folder)
    if serving.server is ServeName.TRITON:
        check_writable(serving.folder.resolve().parent)  # models are written beside it first


def check_only_serving(fields: Mapping[str, Any], **options: object) -> None:
    """Refuse options of a fit where nothing is fitted.

    Raises:
        ConfigurationError: there are some; they are named.
    """
    names = sorted({*fields, *(name for name, value in options.items() if value)})
    if names:
        raise ConfigurationError(
            f"--only-serve fits nothing, and {', '.join(names)} would not be used. Leave that out, "
            "or --only-serve"
        )


def serve_existing(serving: Serving, names: Sequence[str], out: Path, *, as_json: bool) -> None:
    """Serve models that lie in ``out``; ``all`` is every class there.

    Raises:
        PatchlineError: as for :func:`serve_classes`; or a folder cannot be written to.
        typer.Exit: as for :func:`serve_classes`.
    """
    from patchline.export.serving.found_model import classes_in

    selected = classes_in(out) if list(names) == ["all"] else list(dict.fromkeys(names))
    _check_folders(serving)
    serve_classes(serving, dict.fromkeys(selected), out, as_json=as_json)


def serve_classes(
    serving: Serving, places: Mapping[str, Place | None], out: Path, *, as_json: bool
) -> None:
    """Lay the models of classes out for a server, and print where.

    One of several that cannot be served is told of, and the others are served.

    Args:
        serving: what was asked for.
        places: class name -> where its bank is; ``None`` for whichever model is there.
        out: folder of the models.
        as_json: a line of JSON per class instead of text.

    Raises:
        PatchlineError: the only class cannot be served: as for
            :func:`patchline.export.serving.found_model.find_model`,
            :func:`patchline.export.serving.triton.serve_triton` and
            :func:`patchline.export.serving.deepstream.serve_deepstream`.
        typer.Exit: some of several classes cannot be served.
    """
    is_alone, are_served = len(places) == 1, True
    for name, place in places.items():
        found = {"class": name, "serve": serving.server.value}
        try:
            result = found | _serve(serving, out, name, place)
        except Exception as error:  # whatever it is, the others have nothing to do with it
            if is_alone:
                raise
            are_served, result = False, found | _failure(name, error)
        if as_json or "error" not in result:
            typer.echo(json.dumps(result) if as_json else _sentence(result))
    if not are_served:
        raise typer.Exit(EXIT_ERROR)


def _failure(name: str, error: Exception) -> dict[str, Any]:
    """Tell of a class that cannot be served; what a line of JSON says of it."""
    from patchline.export.fleet.outcome import sentence_of

    if not isinstance(error, (PatchlineError, OSError)):
        traceback.print_exc()  # a bug report needs it whole
    print_error(f"{name}: {sentence_of(error)}")
    return {"result": "failed", "error": sentence_of(error)}


def _serve(serving: Serving, out: Path, name: str, place: Place | None) -> dict[str, Any]:
    from patchline.export.serving.found_model import find_model

    return _laid_out(serving, find_model(out, name, place))


def _laid_out(serving: Serving, model: FoundModel) -> dict[str, Any]:
    if serving.server is ServeName.DEEPSTREAM:
        from patchline.export.serving.deepstream import serve_deepstream

        files = serve_deepstream(model, serving.folder)
        return {"path": str(files.config), "changed": files.is_changed}
    from patchline.export.serving.triton import serve_triton

    published = serve_triton(model, serving.folder, plan=serving.is_plan)
    return {
        "path": str(published[-1].folder),
        "changed": any(one.is_changed for one in published),
        "version": published[-1].version,
        "models": [one.folder.name for one in published],
    }


def _sentence(result: Mapping[str, Any]) -> str:
    parts = result.get("models", [])[:-1]
    version = f" version {result['version']}" if "version" in result else ""
    beside = f", with {' and '.join(parts)}" if parts else ""
    state = "written" if result["changed"] else "unchanged"
    return f"{result['class']}: {result['path']}{version}{beside} ({state})"
