"""``NAME.job.json``: what the model beside it was made from, so that it is made once (issue 9).

Written last, after the model's own files. A model without one is not known to be up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from patchline.runtime.errors import ConfigurationError, ManifestError
from patchline.runtime.files import write_atomically

SUFFIX = ".job.json"

FORMAT: Literal[1] = 1
"""The only one there is; a record of another is no record."""


class JobRecord(BaseModel):
    """What a model was made from.

    Attributes:
        format: of this file.
        class_name: of the model.
        patchline: version that made it.
        pictures: digests of its pictures, see
            :func:`patchline.export.datasets.picture_digests`.
        added: of those that came later, with ``--extend``.
        settings: fields of the settings that count, by name.
        state: SHA-256 of the state file of another folder that it was made again from.
        files: digests of the model's files by name, see :mod:`patchline.export.fleet.made_from`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    class_name: str
    patchline: str
    pictures: tuple[str, ...]
    added: tuple[str, ...] = ()
    settings: dict[str, Any]
    state: str | None = None
    files: dict[str, str]


def record_path(folder: Path, class_name: str) -> Path:
    """Where the record of a class lies."""
    return folder / f"{class_name}{SUFFIX}"


def check_names(class_names: list[str]) -> None:
    """Refuse a class whose manifest would lie where the record of another does.

    Raises:
        ConfigurationError: a name ends in ``.job``.
    """
    ending = Path(SUFFIX).stem
    wrong = [name for name in class_names if name.endswith(ending)]
    if wrong:
        raise ConfigurationError(
            f"a class is called {wrong[0]}, and NAME{SUFFIX} is what the class NAME was made from. "
            "Rename its folder"
        )


def save_record(record: JobRecord, folder: Path) -> None:
    """Write a record, whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    text = record.model_dump_json(indent=1) + "\n"
    write_atomically(record_path(folder, record.class_name), text.encode())


def load_record(folder: Path, class_name: str) -> JobRecord | None:
    """Read a record; ``None`` where there is none.

    Raises:
        ManifestError: it cannot be read, is damaged, of another class or another Patchline.
    """
    path = record_path(folder, class_name)
    try:
        found = JobRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ManifestError(f"{path} is no record of this Patchline's") from error
    if found.class_name != class_name:
        raise ManifestError(f"{path} is of the class {found.class_name}")
    return found
