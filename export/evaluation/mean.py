"""The mean of each metric over classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np

from patchline.export.evaluation.result import Metrics


def mean_metrics(classes: Iterable[Metrics]) -> Metrics:
    """Mean of each metric over the classes that have it; ``None`` where none has."""
    classes = list(classes)
    return Metrics(
        **{f.name: _mean([getattr(m, f.name) for m in classes]) for f in fields(Metrics)}
    )


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
