"""How a fit keeps to its memory budget: an account of what it will hold, made before it starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchline.export.coreset import PROJECTED_DIMENSION
from patchline.runtime.errors import ConfigurationError

_FLOAT_BYTES = 4
_MIB = 1 << 20
_COPIES_OF_BANK = 3  # the bank, its padded form, and one in the making
_PER_ROW_BYTES = 16  # distance, norm and flags of the coreset


@dataclass(frozen=True)
class MemoryPlan:
    """What a fit holds.

    Attributes:
        spill: folder for the patch embeddings, or ``None`` where they stay in memory.
        features_bytes: size of all patch embeddings.
        peak_bytes: what the fit's own data takes at most; PyTorch and the backbone's
            activations come on top.
    """

    spill: Path | None
    features_bytes: int
    peak_bytes: int


def plan_memory(
    *,
    images: int,
    patches: int,
    dimension: int,
    bank_rows: int,
    neighbors: int,
    budget_bytes: int,
    inherited_rows: int = 0,
) -> MemoryPlan:
    """Decide what stays in memory.

    The bank, the 128-d projections of all rows and one image's neighbours always do. The patch
    embeddings themselves do where the budget has room, and otherwise lie in a temporary file.
    ``inherited_rows`` of a bank that is extended lie beside those of the images.

    Raises:
        ConfigurationError: the budget is too small even so (says how much is needed).
    """
    rows = inherited_rows + images * patches
    held = rows * min(PROJECTED_DIMENSION, dimension) * _FLOAT_BYTES
    held += rows * (_PER_ROW_BYTES + neighbors * _FLOAT_BYTES)
    held += _COPIES_OF_BANK * bank_rows * dimension * _FLOAT_BYTES
    # One image at a time: its distances to the bank, and its neighbours with their differences.
    held += patches * _FLOAT_BYTES * (2 * bank_rows + 3 * neighbors * dimension)
    features = rows * dimension * _FLOAT_BYTES
    if held > budget_bytes:
        raise ConfigurationError(
            f"the memory budget is {budget_bytes // _MIB:,} MiB, and {images} images at this size "
            f"and coreset ratio need {-(-held // _MIB):,} MiB. Raise --memory-budget, or lower "
            "--coreset-ratio"
        )
    in_memory = held + features <= budget_bytes
    return MemoryPlan(
        spill=None if in_memory else Path(tempfile.gettempdir()),
        features_bytes=features,
        peak_bytes=held + features if in_memory else held,
    )
