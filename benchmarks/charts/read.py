"""Results files as charts need them; peers' are read with care, since not all of them have run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.runtime.errors import DataError

Points = dict[str, list[tuple[float, float]]]
"""Per peer: bank rows and a value, ascending."""


@dataclass(frozen=True)
class Results:
    """One results file.

    Attributes:
        suite: its name.
        machine: as it is called in names of files.
        document: all of it.
    """

    suite: str
    machine: str
    document: Mapping[str, Any]

    @property
    def results(self) -> Any:
        """What was measured."""
        return self.document["results"]

    def note(self, *parts: str) -> str:
        """Where, with what and when, for the small letters of a chart."""
        machine = self.document["machine"]
        words = (*parts, f"{machine['cpu']}, {machine['cores']} cores", self.document["date"][:10])
        return "; ".join(word.replace("$", "") for word in words)


def read_results(folder: Path) -> list[Results]:
    """All results of a version, by name.

    Raises:
        DataError: there are none, or one is damaged.
    """
    paths = sorted(folder.glob("*--*.json"))
    if not paths:
        raise DataError(f"no results in {folder}: a benchmark writes them")
    return [_read(path) for path in paths]


def peer_points(all_results: list[Results], like: Results, suite: str, field: str) -> Points:
    """What peers measured on the same machine with the same backbone.

    Args:
        all_results: of a version.
        like: gives machine and backbone.
        suite: such as ``peers-latency``.
        field: of a row, such as ``median_ms``.

    Returns:
        Empty where that suite has not run.
    """
    found: Points = {}
    for results in all_results:
        if results.suite == suite and results.machine == like.machine:
            for row in _rows(results.results, like.results["backbone"]):
                if _is_number(row.get(field)):
                    point = (float(row["bank_rows"]), float(row[field]))
                    found.setdefault(str(row["peer"]).replace("$", ""), []).append(point)
    return {name: sorted(points) for name, points in found.items()}


def _read(path: Path) -> Results:
    suite, _, machine = path.stem.partition("--")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}. Measure it again") from error
    if not isinstance(document, dict) or not {"results", "machine", "date"} <= document.keys():
        raise DataError(f"{path} lacks results, machine or date. Measure it again")
    return Results(suite, machine, document)


def _rows(results: Any, backbone: str) -> Iterator[Mapping[str, Any]]:
    rows = results.get("rows") if isinstance(results, dict) else None
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not {"peer", "backbone", "bank_rows"} <= row.keys():
            continue
        if _plain(row["backbone"]) == _plain(backbone) and _is_number(row["bank_rows"]):
            yield row


def _plain(name: object) -> str:
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
