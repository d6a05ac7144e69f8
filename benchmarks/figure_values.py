"""Values of results files by path, and what is computed from several, for README's figures."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from patchline.benchmarks.schema import check_file
from patchline.runtime.errors import ConfigurationError

HOW: dict[str, Callable[[list[float]], float]] = {
    "one": lambda values: values[0],
    "sum": math.fsum,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
    "ratio": lambda values: values[0] / values[1],
    "difference": lambda values: values[0] - values[1],
}
_TAKES = {"one": 1, "ratio": 2, "difference": 2}


class Strict(BaseModel):
    """A model that knows all its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Computed(Strict):
    """A value computed from others.

    Attributes:
        of: paths of values, or values computed in turn.
        how: one of :data:`HOW`.
        scale: what the outcome is multiplied by, 100 for percent.
        digits: significant ones that it is rounded to; ``None`` leaves that to the format.
    """

    of: list[str | Computed] = Field(min_length=1)
    how: Literal["one", "sum", "mean", "min", "max", "ratio", "difference"] = "one"
    scale: float = 1.0
    digits: int | None = Field(default=None, ge=1)


class Limit(Strict):
    """What must hold of a value for the words beside it to be true."""

    at_least: float | None = None
    at_most: float | None = None
    equals: str | float | None = None

    def holds(self, value: Any) -> bool:
        """Whether it does."""
        if self.equals is not None:
            return bool(value == self.equals)
        if not isinstance(value, (int, float)):
            return False
        low = -math.inf if self.at_least is None else self.at_least
        return low <= value <= (math.inf if self.at_most is None else self.at_most)


@dataclass(frozen=True)
class Results:
    """The committed files of one version and machine."""

    folder: Path
    machine: str

    def __call__(self, suite: str) -> dict[str, Any]:
        """The document of a suite.

        Raises:
            DataError: it is not what the schema says.
            ConfigurationError: there is no such file.
        """
        path = self.folder / f"{suite}--{self.machine}.json"
        if not path.is_file():
            raise ConfigurationError(f"figures are asked of {path}, which does not exist")
        return check_file(path).model_dump()


def value_of(spec: str | Computed, suite: str, results: Results) -> Any:
    """The value of a path, or what is computed from several.

    Args:
        spec: ``a/b`` is ``results["a"]["b"]``, ``/a`` is the file's own ``a``, ``[a=1,b=x]`` the
            one element of a list that has these, and ``suite:a/b`` lies in another file.
        suite: the file.
        results: all of them.

    Raises:
        ConfigurationError: a path leads nowhere, or what it leads to cannot be computed with.
    """
    if isinstance(spec, str):
        return _follow(spec, suite, results)
    values = [value_of(part, suite, results) for part in spec.of]
    if not all(isinstance(value, (int, float)) for value in values):
        raise ConfigurationError(f"{spec.of}: expected numbers, found {values}")
    if len(values) != (expected := _TAKES.get(spec.how, len(values))):
        raise ConfigurationError(f"{spec.how} of {spec.of}: expected {expected} values")
    value = spec.scale * HOW[spec.how](values)
    return value if spec.digits is None else float(f"{value:.{spec.digits - 1}e}")


def _follow(path: str, suite: str, results: Results) -> Any:
    other, _, rest = path.partition(":") if re.match(r"[\w.-]+:", path) else ("", "", path)
    document = results(other or suite)
    value: Any = document if rest.startswith("/") else document["results"]
    try:
        for part in re.findall(r"\[[^\]]*\]|[^/\[]+", rest):
            value = _chosen(value, part[1:-1]) if part.startswith("[") else value[part]
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{other or suite} has nothing at {rest!r}: {error}") from error
    return value


def _chosen(rows: list[dict[str, Any]], conditions: str) -> dict[str, Any]:
    asked = dict(one.split("=", 1) for one in re.split(r",(?=\w+=)", conditions))
    found = [row for row in rows if all(str(row[name]) == text for name, text in asked.items())]
    if len(found) != 1:
        raise KeyError(f"{len(found)} elements are [{conditions}], expected one")
    return found[0]
