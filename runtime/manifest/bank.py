"""The memory bank and how it is searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from patchline.runtime.manifest.section import Finite, Positive, Rate, Section

BankPrecision = Literal["fp32", "fp16"]


class FoundNeighbors(Section):
    """What a pruned search found on good pictures, beside the exact one.

    No picture was judged by its own rows of the bank.

    Attributes:
        images: pictures compared.
        nearest: share of their patches whose nearest row was found.
        all: share whose k nearest rows were all found.
        image_score_change: largest, in parts of the threshold.
    """

    images: Positive
    nearest: Rate
    all: Rate
    image_score_change: Finite


class PrunedSearch(Section):
    """A search that ranks the bank by an estimate first, and may miss a neighbour.

    Attributes:
        leading: principal coordinates that the estimate looks at.
        candidates: rows that are then ranked by the distance itself.
        found: what it finds; ``None`` where that was not measured.
    """

    leading: Positive
    candidates: Positive
    found: FoundNeighbors | None = None


class ShardedCoreset(Section):
    """A bank chosen in shards, for want of memory, and not by the exact greedy.

    Attributes:
        shards: parts that the rows were covered in.
        delta: in (0, 1]; what each part's cover left of its radius at the size of the bank. The
            bank's own is at most 2 + 2 delta times the best possible.
        covering_radius: largest distance of a training row to the bank, in the projection;
            measured.
    """

    method: Literal["sharded"] = "sharded"
    shards: Positive
    delta: Rate
    covering_radius: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MemoryBank(Section):
    """The coreset of good patches: ``rows`` times ``dimension``, and how it was chosen.

    ``precision`` is that of the stored rows and of the search; distances are float32 always.
    ``search`` is ``None`` where the search is exact. ``search_problems`` says, with figures, why a
    bank large enough for a pruned search is searched exactly; else it is empty. ``coreset`` is
    ``None`` where the rows are the exact greedy's.
    """

    rows: Positive
    dimension: Positive
    neighbors: Positive
    coreset_ratio: Rate
    seed: int
    precision: BankPrecision = "fp32"
    search: PrunedSearch | None = None
    search_problems: tuple[str, ...] = ()
    coreset: ShardedCoreset | None = None


class DistanceStatistics(Section):
    """Mean and standard deviation of the k-mean distance of held-out normal patches."""

    mean: Finite
    std: Finite
