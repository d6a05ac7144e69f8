"""One point in a process of its own: a fit, or a part of one, over drawn patch embeddings.

Run as ``python -m patchline.benchmarks.scaling.fit_point JSON``. The backbone has no part in it: it
takes the same time for every picture. Drawing the embeddings is not timed.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from patchline.benchmarks.scaling.drawn import drawn_rows
from patchline.benchmarks.scaling.memory import memory_report, resident_mib
from patchline.benchmarks.scaling.names import CORESET, FEATURES, FIT
from patchline.export.coreset import (
    PROJECTED_DIMENSION,
    coreset_size,
    greedy_coreset,
    random_projection,
)
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.export.row_store import RowStore

DIMENSION = 384
NEIGHBORS = 9
SEED = 0

PARTS = (FEATURES, CORESET, FIT)

Spill = Literal["budget", "always", "never"]

_BATCH = 8
_NO_BUDGET = 1 << 50
# It imports timm, which the parts do without.
_WHOLE_FIT = "patchline.benchmarks.scaling.whole_fit"


@dataclass(frozen=True)
class FitCase:
    """What to measure.

    Attributes:
        part: ``features`` (stored and projected), ``coreset`` (picked from projections alone), or
            ``fit`` (both, with the cross-fitted threshold).
        images: N.
        grid: patches along a side of an image; there are ``grid ** 2`` in it.
        ratio: share of the rows in the bank.
        rows: of the bank, whatever the ratio; 0 for the ratio's.
        spill: whether the features go to disk: as the ``budget`` has it, ``always`` or ``never``.
        budget_mib: the memory budget.
        threads: of PyTorch; 0 for its own choice.
    """

    part: str
    images: int
    grid: int
    ratio: float
    rows: int
    spill: Spill
    budget_mib: int
    threads: int

    @property
    def all_rows(self) -> int:
        """Patch embeddings of all images."""
        return self.images * self.grid**2

    @property
    def picks(self) -> int:
        """Rows of the bank."""
        return min(self.rows, self.all_rows) or coreset_size(self.all_rows, self.ratio)

    def plan(self) -> MemoryPlan:
        """What a fit would hold, and the folder of the features where they go to disk."""
        budget_bytes = self.budget_mib << 20 if self.spill == "budget" else _NO_BUDGET
        plan = plan_memory(
            images=self.images,
            patches=self.grid**2,
            dimension=DIMENSION,
            bank_rows=self.picks,
            neighbors=NEIGHBORS,
            budget_bytes=budget_bytes,
        )
        return replace(plan, spill=Path(tempfile.gettempdir())) if self.spill == "always" else plan


@torch.inference_mode()
def measure(case: FitCase) -> dict[str, Any]:
    """Time one case.

    Returns:
        Times in milliseconds, one of each part, and of a fit their sum; memory in MiB with
        everything imported (``baseline``), at the end, and at most.
    """
    if case.threads:
        torch.set_num_threads(case.threads)
    if case.part == FIT:
        import_module(_WHOLE_FIT)
    clock = Clock()
    baseline = resident_mib()
    facts = _coreset(case, clock) if case.part == CORESET else _fit(case, clock)
    times_ms = clock.times_ms
    if case.part == FIT:
        times_ms[FIT] = [round(sum(time for (time,) in times_ms.values()), 3)]
    return {
        "times_ms": times_ms,
        "memory_mib": memory_report(baseline),
        "facts": {"rows": case.all_rows, **facts},
    }


class Clock:
    """Adds up the time of named parts."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    @property
    def times_ms(self) -> dict[str, list[float]]:
        """The sums so far, in milliseconds, each as a list of one."""
        return {name: [round(1e3 * seconds, 3)] for name, seconds in self._sums.items()}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time for which the context is open."""
        started = time.perf_counter()
        yield
        self._sums[name] = self._sums.get(name, 0.0) + time.perf_counter() - started


def _coreset(case: FitCase, clock: Clock) -> dict[str, Any]:
    patches = case.grid**2
    projections = torch.empty(case.all_rows, PROJECTED_DIMENSION)
    for image in range(case.images):
        part = slice(image * patches, (image + 1) * patches)
        projections[part] = _projected(_embeddings(case, image))
    with clock.part(CORESET):
        greedy_coreset(projections, case.picks, seed=SEED)
    return {"picks": case.picks}


def _fit(case: FitCase, clock: Clock) -> dict[str, Any]:
    plan = case.plan()
    rows, projections = _features(case, plan.spill, clock)
    try:
        if case.part == FIT:
            import_module(_WHOLE_FIT).judge_and_choose(rows, projections, case, clock)
    finally:
        rows.close()
    return {
        "picks": case.picks,
        "on_disk": int(rows.on_disk),
        "features_mib": round(plan.features_bytes / 2**20, 2),
    }


def _features(case: FitCase, spill: Path | None, clock: Clock) -> tuple[RowStore, torch.Tensor]:
    """As :func:`patchline.export.features.extract_features` keeps them, eight images at a time."""
    patches = case.grid**2
    rows = RowStore(case.all_rows, DIMENSION, spill)
    projections = torch.empty(case.all_rows, PROJECTED_DIMENSION)
    for first in range(0, case.images, _BATCH):
        batch = range(first, min(first + _BATCH, case.images))
        embedded = torch.cat([_embeddings(case, image) for image in batch])
        with clock.part(FEATURES):
            projections[batch.start * patches : batch.stop * patches] = _projected(embedded)
            rows.append(embedded)
    return rows, projections


def _embeddings(case: FitCase, image: int) -> torch.Tensor:
    """Of one image, ``[P, D]``; the same in every process."""
    return drawn_rows(case.grid**2, DIMENSION, seed=image)


_MATRIX = random_projection(DIMENSION, SEED)


def _projected(embedded: torch.Tensor) -> torch.Tensor:
    return embedded if _MATRIX is None else embedded @ _MATRIX


def main() -> None:
    """Measure what the only argument says, as JSON, and print the result as JSON."""
    given = json.loads(sys.argv[1])
    # Where the fit's own temporary files go, too.
    tempfile.tempdir = given.pop("folder")
    print(json.dumps(measure(FitCase(**given))))  # noqa: T201


if __name__ == "__main__":
    main()
