"""What a class that was not made reports, for tests of what comes before and after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from patchline.export.precision.again import Job


def report_of(job: Job) -> Any:
    """As of a model with these pictures, and a threshold of one half."""
    manifest = SimpleNamespace(
        class_name=job.pictures.class_name,
        training_set=SimpleNamespace(images=len(job.pictures.paths)),
        threshold=SimpleNamespace(value=0.5),
    )
    return SimpleNamespace(manifest=manifest, seconds=1.0)
