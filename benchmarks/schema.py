"""What a results file must be before anybody may cite it: benchmarks/README.md, "The file"."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import field_validator as checked

from patchline.runtime.errors import DataError

MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:[\w.+@~-]+/)*(?=[\w.+@~-])|\b[A-Za-z]:\\(?:[^\\\s]+\\)*"
)
"""The folders of a path from the root of a machine; the last part of the path is not in it."""

NULLS = {
    "gate": "nothing was converted, so nothing was compared",
    "neighbors": "the score does not depend on k",
    "plan_bytes": "no plan was built",
    "plans": "no plans were built",
    "quantization": "nothing was made INT8",
}
"""Names that may be null in results, and what it means. Any other figure that is not there is left
out, with a sentence that says why."""

_UNIT = re.compile(
    "ns|us|ms|s|seconds|minutes|hours|bytes|kib|mib|gib|kb|mb|gb|px|percent|fps|hz|mhz"
)
_RATIO = re.compile(
    "over|times|ratio|share|speedup|growth|per|rate|slope|exponent|fraction|change|cv"
)
_QUANTITY = re.compile("latency|duration|elapsed|time|memory|rss|size|delay|peak|wall")
_STATISTIC = re.compile("min|mean|median|max|q1|q3|iqr|p50|p90|p95|p99")

_Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Suite = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:[-_.][a-z0-9]+)*$")]
_Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$")]
_Load = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=3, max_length=3)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Machine(_Strict):
    """Where it was measured; ``None`` is in files that are older than the field.

    Attributes:
        instruction_sets: for vectors and matrices; they tell processors of one name apart.
    """

    cpu: _Name
    cores: int = Field(ge=1)
    system: _Name
    python: _Name
    packages: dict[str, _Name | None]
    memory_mib: int | None = Field(default=None, ge=1)
    instruction_sets: list[_Name] | None = None

    @checked("packages")
    @classmethod
    def _names_patchline(cls, packages: dict[str, str | None]) -> dict[str, str | None]:
        if not packages.get("patchline"):
            raise ValueError("the version of patchline is missing")
        return packages


class Threads(_Strict):
    """Threads that the benchmark's own process may use; an engine's are in its results.

    Attributes:
        usable_cores: that the system lets it run on.
        omp_num_threads: the variable, ``None`` where it is not set.
        torch: threads of PyTorch, ``None`` where it was not loaded.
    """

    usable_cores: int = Field(ge=1)
    omp_num_threads: str | None
    torch: int | None = Field(ge=1)


class Run(_Strict):
    """What a rerun needs to know.

    Attributes:
        command: its words, files reduced to their last part.
        commit: of the code, ``None`` outside a checkout.
        is_dirty: the code differs from the commit; ``None`` outside a checkout.
        duration_s: since the benchmark was loaded, or since it wrote its previous result.
        load_average_start: over 1, 5 and 15 minutes; ``None`` where the system has none.
        load_average_end: the same at the end; the benchmark itself is in it.
        threads: of the benchmark's process.
    """

    command: Annotated[list[str], Field(min_length=1)]
    commit: _Commit | None
    is_dirty: bool | None
    duration_s: float = Field(ge=0)
    load_average_start: _Load | None
    load_average_end: _Load | None
    threads: Threads


class Result(_Strict):
    """One file; ``run`` is ``None`` in files that are older than the field."""

    suite: _Suite
    date: str
    machine: Machine
    run: Run | None = None
    results: dict[str, Any] = Field(min_length=1)

    @checked("date")
    @classmethod
    def _has_a_zone(cls, date: str) -> str:
        if datetime.datetime.fromisoformat(date).tzinfo is None:
            raise ValueError(f"{date!r} has no time zone")
        return date

    @checked("results")
    @classmethod
    def _is_sound(cls, results: dict[str, Any]) -> dict[str, Any]:
        if faults := list(_faults(results, ())):
            raise ValueError("; ".join(faults))
        return results


def machine_slug(cpu: str, cores: int) -> str:
    """How a machine is called in the name of a file."""
    return f"{re.sub(r'[^a-z0-9]+', '-', cpu.lower()).strip('-')}-{cores}-cores"


def check_file(path: Path) -> Result:
    """Read ``<version>/<suite>--<machine>.json`` and hold it against the schema.

    Raises:
        DataError: it is no strict JSON, or not what the schema says; the message names every fault.
    """
    try:
        document = _strict_json(path.read_text(encoding="utf-8"))
        if found := _path_in(document):
            raise ValueError(f"{found!r} is a path of one machine; keep its last part")
        result = Result.model_validate(document)
        _check_place(path, result)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"{path} is no results file: {'; '.join(faults)}") from error
    except ValueError as error:
        raise DataError(f"{path} is no results file: {error}") from error
    return result


def _check_place(path: Path, result: Result) -> None:
    machine = machine_slug(result.machine.cpu, result.machine.cores)
    if path.name != (name := f"{result.suite}--{machine}.json"):
        raise ValueError(f"its suite and machine call it {name}")
    if path.parent.name != (version := result.machine.packages["patchline"]):
        raise ValueError(f"it was measured with patchline {version}, that is its folder")


def _strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse, object_pairs_hook=_without_doubles)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no strict JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError(f"a name is there twice among {', '.join(name for name, _ in pairs)}")
    return document


def _path_in(value: Any) -> str | None:
    """The first text, name or value, that holds a path of a machine."""
    if isinstance(value, str):
        return value if MACHINE_PATH.search(value) else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    if not isinstance(parts, list):
        return None
    return next((found for part in parts if (found := _path_in(part))), None)


def _faults(value: Any, names: tuple[str, ...]) -> Iterator[str]:
    """Everything that is wrong with a part of the results; ``names`` lead to it."""
    place = "/".join(names)
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _faults(part, (*names, name))
    elif isinstance(value, list):
        for part in value:
            yield from _faults(part, names)
    elif value is None:
        if names[-1] not in NULLS:
            yield f"{place} is null: leave it out and say why, or list its meaning in schema.NULLS"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            yield f"{place} is {value}: no figure"
        if _lacks_unit(names):
            yield f"{place} has no unit in its name or in one above it, such as _ms or _mib"


def _lacks_unit(names: tuple[str, ...]) -> bool:
    needs_one = _has(_QUANTITY, names[-1]) or _STATISTIC.fullmatch(names[-1])
    return bool(needs_one) and not any(_has(_UNIT, n) or _has(_RATIO, n) for n in names)


def _has(words: re.Pattern[str], name: str) -> bool:
    return any(words.fullmatch(word) for word in re.findall(r"[a-z0-9]+", name.lower()))
