"""Classes as a call plans them, of drawn pictures that are small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchline.export.datasets import good_pictures
from patchline.export.making.output import Output
from patchline.export.precision.again import Job

from ..drawn import settings_with


def output_in(folder: Path, **changes: Any) -> Output:
    """Where models go."""
    given: dict[str, Any] = {"as_json": False, "is_forced": False, "sensitivity": None, **changes}
    return Output(folder, **given)


def job_of(data: Path, name: str, **changes: Any) -> Job:
    """A class of a data folder with the quick settings."""
    return Job(good_pictures(data, name), settings_with(**changes))
