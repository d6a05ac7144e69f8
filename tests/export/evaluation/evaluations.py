"""Evaluations made by hand, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchline.export.datasets import TestPicture
from patchline.export.evaluation.result import Curve, Evaluation, Metrics, ScoredPicture
from patchline.runtime.contract import Manifest
from tests.runtime.tiny_model import make_manifest

CURVE = Curve(np.array([0.0, 0.0, 0.1, 0.5, 1.0]), np.array([0.0, 0.5, 0.8, 1.0, 1.0]))
METRICS = Metrics(0.91234, 0.92346, 0.93456, 0.94567, 0.95678, 0.86789, 0.77891, 0.68912)


def scored(score: float, defect: str = "good", name: str = "000.png") -> ScoredPicture:
    return ScoredPicture(TestPicture(Path("test", defect, name), defect, None), score)


def with_threshold(value: float, **changes: Any) -> Manifest:
    manifest = make_manifest(**changes)
    threshold = manifest.threshold.model_copy(update={"value": value, "map_value": value})
    return manifest.model_copy(update={"threshold": threshold})


def evaluation_of(
    pictures: Sequence[ScoredPicture], threshold: float = 1.0, **changes: Any
) -> Evaluation:
    """An evaluation with figures that are easy to tell apart, some of them changed."""
    values: dict[str, Any] = {
        "manifest": with_threshold(threshold),
        "engine": "a fake engine",
        "pictures": tuple(pictures),
        "metrics": METRICS,
        "fpr_limit": 0.3,
        "image_roc": CURVE,
        "pixel_roc": CURVE,
        "pro": CURVE,
        "problems": (),
        "notes": (),
    }
    return Evaluation(**(values | changes))
