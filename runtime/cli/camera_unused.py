"""Options of ``run-camera`` that would do nothing without another one are refused, by name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchline.runtime.cli.camera_line import LineOptions
    from patchline.runtime.cli.camera_output_options import OutputOptions
    from patchline.runtime.cli.camera_page import PageOptions
    from patchline.runtime.line.material import CameraMaterial

TOKEN = "PATCHLINE_TOKEN"
"""Environment variable of the page's token, which may be set for lines without a page, too."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> None:
    """See that a line's name can be part of topics and of its folder's path.

    Raises:
        ConfigurationError: it cannot.
    """
    from patchline.runtime.errors import ConfigurationError

    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"--name {name!r} cannot be, expected 1 to 64 letters, digits, -, _ and ., the first "
            "one no dot: topics and the folder of the state are called so"
        )


def check_used(outputs: OutputOptions, page: PageOptions) -> None:
    """See that every option has something to work on, and each output a path of its own.

    Raises:
        ConfigurationError: one has not; all such options are named.
    """
    paths = {"--output": outputs.annotated, "--log": outputs.log, "--store": outputs.store}
    _check_own_paths({name: path for name, path in paths.items() if path is not None})
    _refuse([*_of_outputs(outputs), *_of_page(page)])


def check_sources(cameras: Collection[CameraMaterial], line: LineOptions) -> None:
    """See likewise that options of live cameras, and those of files, have some.

    Args:
        cameras: which were found, so that a path that is mistyped is told as what it is.
        line: the options.

    Raises:
        ConfigurationError: they have none.
    """
    sentences = []
    if line.reconnect_limit is not None and not any(camera.is_live for camera in cameras):
        sentences.append("--reconnect-limit would do nothing: files are never opened again")
    if line.skips_unreadable and all(camera.is_live for camera in cameras):
        sentences.append(
            "--skip-unreadable would do nothing: pictures of live cameras that cannot be read "
            "are always left out"
        )
    _refuse(sentences)


def _refuse(sentences: Sequence[str]) -> None:
    from patchline.runtime.errors import ConfigurationError

    if sentences:
        raise ConfigurationError(f"{'; '.join(sentences)}. Leave it out, or give what it is for")


def _check_own_paths(given: dict[str, Path]) -> None:
    from patchline.runtime.errors import ConfigurationError

    for (one, path), (other, other_path) in itertools.combinations(given.items(), 2):
        if path.resolve() == other_path.resolve():
            raise ConfigurationError(f"{one} and {other} are both {path}: give each its own")


def _of_outputs(asked: OutputOptions) -> Iterator[str]:
    yield from _without(
        "--log", asked.log, {"--log-size": asked.log_size, "--log-files": asked.log_files}
    )
    limits = {
        "--store-every": asked.store_every,
        "--store-size": asked.store_size,
        "--store-days": asked.store_days,
    }
    yield from _without("--store", asked.store, limits)
    yield from _without(
        "--webhook", asked.webhook, {"--webhook-picture": asked.webhook_picture or None}
    )
    yield from _without(
        "--output-hook", asked.hooks or None, {"--output-option": asked.hook_options or None}
    )


def _of_page(page: PageOptions) -> Iterator[str]:
    token = None if page.token == os.environ.get(TOKEN) else page.token
    given = {"--host": page.host, "--port": page.port, "--token": token}
    yield from _without("--dashboard", page.has_page or None, given)


def _without(needed: str, value: object, given: Mapping[str, object]) -> Iterator[str]:
    names = ", ".join(name for name, one in given.items() if one is not None)
    if value is None and names:
        yield f"{names} would do nothing without {needed}"
