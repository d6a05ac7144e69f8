"""Whether a model that is there is what a call would make, and why it is not (issue 9)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors

from patchline.export.fleet.made_from import (
    RATE,
    digests_of,
    file_digest,
    settings_that_count,
    state_digest,
    weights_digest,
)
from patchline.export.fleet.record import JobRecord, load_record
from patchline.export.fleet.recorded import manifest_of
from patchline.export.making.output import Output
from patchline.export.precision.again import Job
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.contract import Manifest, manifest_path
from patchline.runtime.errors import ManifestError, ModelError


def out_of_date(job: Job, output: Output, given: Collection[str]) -> list[str]:
    """Why a class has to be made; empty where its model is up to date.

    Args:
        job: how it would come about.
        output: where to.
        given: names of the fields of the settings that were given.

    Raises:
        OSError: a picture, the weights or the state cannot be read.
    """
    try:
        record = load_record(output.folder, job.pictures.class_name)
    except ManifestError as error:
        return [str(error)]
    if record is None:
        return ["it is not there, or not known what it was made from"]
    return [
        *_version_reasons(record),
        *(_state_reasons(record, output) if output.state else _picture_reasons(record, job)),
        *_setting_reasons(record, job, given),
        *_file_reasons(record, output.folder),
    ]


def _version_reasons(record: JobRecord) -> Iterator[str]:
    own = version("patchline")
    if record.patchline != own:
        yield f"Patchline was {record.patchline}, is {own}"


def _state_reasons(record: JobRecord, output: Output) -> Iterator[str]:
    if record.state is None or record.state != state_digest(output.state, record.class_name):
        yield f"the state in {output.state} is another"


def _picture_reasons(record: JobRecord, job: Job) -> Iterator[str]:
    here, own = Counter(digests_of(job)), Counter(record.pictures)
    # Those of --extend may have been put beside the others since.
    more = sum((here - own - Counter(record.added)).values())
    gone = sum((own - here).values())
    if more:
        yield _counted(more, "more")
    if gone:
        yield _counted(gone, "gone")
    if record.added and (more or gone):
        lost = sum((Counter(record.added) - here).values())
        if lost:
            yield f"and {_counted(lost, 'of --extend')} will not be in it again"


def _counted(count: int, what: str) -> str:
    return f"{count} picture{'s' if count > 1 else ''} {what}"


def _setting_reasons(record: JobRecord, job: Job, given: Collection[str]) -> Iterator[str]:
    wanted, found = settings_that_count(job.settings), dict(record.settings)
    if job.state is not None and RATE not in given:
        found[RATE] = wanted[RATE]  # the one that the deployed threshold has
    if wanted.pop("weights") != found.pop("weights", None):
        yield _weights_reason(job, record)
    for name in sorted({*wanted, *found}):
        if _plain(wanted.get(name)) != _plain(found.get(name)):
            yield f"{name} was {_shown(found.get(name))}, is {_shown(wanted.get(name))}"


def _weights_reason(job: Job, record: JobRecord) -> str:
    weights = job.settings.weights
    if weights is not None and weights_digest(weights) is None:
        return f"the weights file {weights} is not there"
    return f"the weights were others than {weights or 'those of the hub'}"


def _file_reasons(record: JobRecord, folder: Path) -> Iterator[str]:
    for name, digest in record.files.items():
        problem = _file_problem(folder / name, digest)
        if problem is not None:
            yield f"{name} {problem}"
    yield from _manifest_reasons(record, folder)


def _file_problem(path: Path, digest: str) -> str | None:
    try:
        return None if file_digest(path) == digest else "was changed"
    except FileNotFoundError:
        return "is not there"
    except (OSError, safetensors.SafetensorError):
        return "cannot be read"


def _manifest_reasons(record: JobRecord, folder: Path) -> Iterator[str]:
    """The threshold may be another one, but the file that it stands in has to be one."""
    path = folder / f"{record.class_name}.onnx"
    bank = path.with_suffix(BANK_SUFFIX)
    is_external = bank.name in record.files
    try:
        found = manifest_of(path, bank if is_external else None)
    except ModelError as error:
        yield str(error)
        return
    if found.class_name != record.class_name:
        yield f"{manifest_path(path).name} is of the class {found.class_name}"
    elif not is_external and _is_of_another_file(found, record.files.get(path.name)):
        yield f"{manifest_path(path).name} is of another file than {path.name}"


def _is_of_another_file(manifest: Manifest, digest: str | None) -> bool:
    return digest is not None and (manifest.onnx is None or manifest.onnx.sha256 != digest)


def _plain(value: Any) -> Any:
    """As it is after a way through JSON."""
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
