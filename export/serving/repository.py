"""A model repository on disk, in which a server that looks at any moment finds whole models.

Triton takes every folder in the repository for a model, and every folder in a model whose name is a
number for a version (Triton's docs, "Model Repository"); it does not wait for a writer. So all is
written beside the repository and moved in by one rename: a new model with its first version and its
configuration, or a new version, and then the configuration that names it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchline.export.serving.triton_config import CLASS, KIND, PREFIX, is_of
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import sha256_of_file, write_errors

CONFIG = "config.pbtxt"

Content = Path | bytes
"""A file to be copied, or what is to be written."""


@dataclass(frozen=True)
class Published:
    """A model in the repository.

    Attributes:
        folder: of the model.
        version: that holds what was to be published.
        is_changed: whether anything was written.
    """

    folder: Path
    version: int
    is_changed: bool


def check_ours(repository: Path, name: str, *owners: Mapping[str, str]) -> None:
    """Refuse a model of that name that is another's, or of another kind.

    Args:
        repository: the folder of all models.
        name: of the model.
        owners: parameters that its configuration has if it is ours, in one way or another.

    Raises:
        ConfigurationError: it is not.
    """
    folder = repository / name
    if not os.path.lexists(folder):
        return
    config = _text(folder / CONFIG)
    if config is not None and any(is_of(config, owner) for owner in owners):
        return
    found = "it has no configuration" if config is None else _whose(config)
    expected = " or ".join(
        ", ".join(f"{key.removeprefix(PREFIX)} {value}" for key, value in owner.items())
        for owner in owners
    )
    raise ConfigurationError(
        f"{folder} is there already and is not what would be written: {found}, expected {expected}."
        " Remove it, or give another --serve-dir"
    )


def publish(
    repository: Path,
    name: str,
    files: Mapping[str, Content],
    configure: Callable[[int], str],
    owner: Mapping[str, str],
) -> Published:
    """Put a model into the repository; one that is there already and is the same is left alone.

    Args:
        repository: the folder of all models, made if it does not exist. Its own folder must be on
            the same file system.
        name: of the model.
        files: of a version, by their names there.
        configure: the configuration for a version.
        owner: parameters that every configuration of it has.

    Raises:
        ConfigurationError: a model of that name is not ours.
        WriteError: a file cannot be written.
    """
    check_ours(repository, name, owner)
    folder = repository / name
    newest = max(versions_of(folder), default=0)
    is_same = newest > 0 and _is_same(folder / str(newest), files)
    version = newest if is_same else newest + 1
    config = configure(version)
    if is_same and _text(folder / CONFIG) == config:
        return Published(folder, version, is_changed=False)
    with _stage(repository) as stage:
        made = stage / name
        _write(made, version, {} if is_same else files, config)
        with write_errors(repository):
            if newest == 0 and not folder.exists():
                made.rename(folder)
            else:
                if not is_same:
                    (made / str(version)).rename(folder / str(version))
                (made / CONFIG).replace(folder / CONFIG)
    return Published(folder, version, is_changed=True)


def versions_of(folder: Path) -> list[int]:
    """Numbers of a model's versions."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if re.fullmatch("[1-9][0-9]*", path.name)]


def _write(folder: Path, version: int, files: Mapping[str, Content], config: str) -> None:
    with write_errors(folder.parent.parent):
        place = folder / str(version)
        place.mkdir(parents=True)
        folder.chmod(0o755)  # mkdtemp's own is for one user, and a server is another
        for file, content in files.items():
            if isinstance(content, bytes):
                (place / file).write_bytes(content)
            else:
                shutil.copyfile(content, place / file)
        (folder / CONFIG).write_text(config, encoding="utf-8")
        for path in (*place.iterdir(), folder / CONFIG):
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


@contextmanager
def _stage(repository: Path) -> Iterator[Path]:
    with write_errors(repository):
        repository.mkdir(parents=True, exist_ok=True)
        beside = repository.resolve().parent
        stage = Path(tempfile.mkdtemp(prefix=".patchline-", dir=beside))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _is_same(version: Path, files: Mapping[str, Content]) -> bool:
    there = {path.name for path in version.iterdir()} if version.is_dir() else set()
    return there == set(files) and all(
        _is_file(version / file, content) for file, content in files.items()
    )


def _is_file(path: Path, content: Content) -> bool:
    if isinstance(content, bytes):
        return path.stat().st_size == len(content) and path.read_bytes() == content
    return sha256_of_file(path) == sha256_of_file(content)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _whose(config: str) -> str:
    found = [
        f"{key.removeprefix(PREFIX)} {value[1]}"
        for key in (KIND, CLASS)
        if (
            value := re.search(
                rf'key: "{re.escape(key)}"\s+value {{ string_value: "(.*?)" }}', config
            )
        )
    ]
    return f"it is of {', '.join(found)}" if found else "export-model did not write it"
