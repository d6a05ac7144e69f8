"""How many rows a memory bank beside the plan may have: its optimization profile (DESIGN 5)."""

from __future__ import annotations

from typing import Any

from patchline.runtime.contract import Manifest
from patchline.runtime.engine.plans.record import BuildOptions
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    GROUP_ROWS,
    MEMORY_BANK,
    GraphManifest,
)

USUAL_ROWS, MOST_ROWS = 2048, 8192
"""What a plan is built for unless told: at 256 px, 1 % of 200 pictures and of 800."""

_Rows = tuple[int, int, int]


def with_bank_rows(options: BuildOptions, model: Manifest | GraphManifest) -> BuildOptions:
    """The options as a plan is really built: the default rows where none are given.

    Args:
        options: ``bank_rows`` is ``None`` for the default.
        model: what is built.

    Raises:
        ConfigurationError: rows for a model that holds its own bank, rows that do not ascend or
            are no multiples of 32, or fewer than the search needs.
    """
    rows = options.bank_rows
    if not isinstance(model, GraphManifest):
        if rows is not None:
            raise ConfigurationError(
                f"the bank rows are {_text(rows)}, but the model holds its own memory bank. Leave "
                "--bank-rows out, or export with --bank external"
            )
        return options
    if rows is None:
        return options.model_copy(update={"bank_rows": default_rows(model)})
    _check(rows, model.least_rows)
    return options


def kept_options(options: BuildOptions, model: Manifest | GraphManifest) -> BuildOptions:
    """Options of an older plan for a model that may have changed since.

    Rows that the model cannot have any more give way to the default, since nobody asks for them
    now.
    """
    try:
        return with_bank_rows(options, model)
    except ConfigurationError:
        return with_bank_rows(options.model_copy(update={"bank_rows": None}), model)


def default_rows(graph: GraphManifest) -> _Rows:
    """Smallest, usual and largest number of rows that a plan is built for unless told."""
    least = graph.least_rows
    return least, max(least, USUAL_ROWS), max(least, MOST_ROWS)


def bank_shapes(name: str, shape: tuple[int, ...], rows: _Rows) -> list[tuple[int, ...]] | None:
    """The three shapes of a network's input for its profile; ``None`` where rows are not in it."""
    if name not in (MEMORY_BANK, BANK_SQUARES, BANK_NEIGHBORS):
        return None
    return [(count, *shape[1:]) for count in rows]


def _check(rows: _Rows, least: int) -> None:
    ascends = least <= rows[0] <= rows[1] <= rows[2]
    if not ascends or any(count % GROUP_ROWS for count in rows):
        raise ConfigurationError(
            f"the bank rows are {_text(rows)}, expected smallest:usual:largest, multiples of "
            f"{GROUP_ROWS} from {least} on, such as {least}:{max(least, USUAL_ROWS)}:"
            f"{max(least, MOST_ROWS)}"
        )


def _text(values: Any) -> str:
    return ":".join(map(str, values))
