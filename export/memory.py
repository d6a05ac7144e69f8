"""How a fit keeps to its memory budget: an account of what it will hold, made before it starts.

An exact coreset needs the projections of all rows at once, one in shards those of a shard and of
all covers.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchline.export.coreset import PROJECTED_DIMENSION
from patchline.export.coreset_sharded import default_shards
from patchline.runtime.errors import ConfigurationError

_FLOAT_BYTES = 4
_MIB = 1 << 20
_COPIES_OF_BANK = 3  # the bank, its padded form, and one in the making
_PER_ROW_BYTES = 16  # distance, norm and flags of the coreset
_MARK_BYTES = 8  # of a row that is in no shard at hand: whether it is a candidate, its distance


@dataclass(frozen=True)
class MemoryPlan:
    """What a fit holds.

    Attributes:
        spill: folder for the patch embeddings, or ``None`` where they stay in memory.
        features_bytes: size of all patch embeddings.
        peak_bytes: what the fit's own data takes at most; PyTorch and the backbone's
            activations come on top.
        shards: number of shards that the coreset is chosen in; ``None`` where it is exact.
        cover_rows: rows that there is room for in all their covers; 0 where it is exact.
    """

    spill: Path | None
    features_bytes: int
    peak_bytes: int
    shards: int | None = None
    cover_rows: int = 0


def plan_memory(
    *,
    images: int,
    patches: int,
    dimension: int,
    bank_rows: int,
    neighbors: int,
    budget_bytes: int,
    inherited_rows: int = 0,
    shards: int | None = None,
) -> MemoryPlan:
    """Decide what stays in memory.

    The bank, the neighbours of all rows and the 128-d projections always do: those of all rows, or
    with ``shards`` those of one shard and of the covers, which get what room is left. The patch
    embeddings themselves do where the budget has room, and otherwise lie in a temporary file.
    ``inherited_rows`` of a bank that is extended lie beside those of the images.

    Raises:
        ConfigurationError: the budget is too small even so (says how much is needed, and where a
            coreset in shards would do with it, how to ask for one).
    """
    rows = inherited_rows + images * patches
    row_bytes = min(PROJECTED_DIMENSION, dimension) * _FLOAT_BYTES + _PER_ROW_BYTES
    held = rows * neighbors * _FLOAT_BYTES
    held += _COPIES_OF_BANK * bank_rows * dimension * _FLOAT_BYTES
    # One image at a time: its distances to the bank, and its neighbours with their differences.
    held += patches * _FLOAT_BYTES * (2 * bank_rows + 3 * neighbors * dimension)
    exact = held + rows * row_bytes
    number = shards or default_shards(rows, bank_rows)
    # Covers hold as many rows as the bank each, and where delta is less than 1 more.
    sharded = held + rows * _MARK_BYTES
    sharded += (-(-rows // number) + inherited_rows + number * bank_rows) * row_bytes
    least = exact if shards is None else sharded
    if least > budget_bytes:
        raise ConfigurationError(
            f"the memory budget is {budget_bytes // _MIB:,} MiB, and {images} images at this size "
            f"and coreset ratio need {_mib(least)}{f' in {shards} shards' if shards else ''}. "
            f"Raise --memory-budget, {_ways_out(shards, sharded, budget_bytes)}"
        )
    features = rows * dimension * _FLOAT_BYTES
    more_covers = 0  # before the features: too little room for covers is an error, a file is slow
    if shards is not None:
        more_covers = max(0, min((budget_bytes - least) // row_bytes, rows - number * bank_rows))
    held = least + more_covers * row_bytes
    in_memory = held + features <= budget_bytes
    return MemoryPlan(
        spill=None if in_memory else Path(tempfile.gettempdir()),
        features_bytes=features,
        peak_bytes=held + features if in_memory else held,
        shards=shards,
        cover_rows=0 if shards is None else number * (bank_rows + 1) + more_covers,
    )


def _ways_out(shards: int | None, sharded: int, budget_bytes: int) -> str:
    """What helps besides a larger budget."""
    if shards is not None:
        return "lower --coreset-ratio, or give another number of coreset_shards"
    if sharded > budget_bytes:
        return "or lower --coreset-ratio"
    return (
        "lower --coreset-ratio, or have the bank chosen in shards, which is an approximation: "
        f"--coreset sharded needs {_mib(sharded)}"
    )


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // _MIB):,} MiB"
