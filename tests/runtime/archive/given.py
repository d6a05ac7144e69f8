"""What the archive's tests score, by what, and how they read it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pyarrow.dataset

from patchline.runtime.archive.listing import list_archive
from patchline.runtime.archive.run import ArchiveResult, ScoreParts, score_here, score_missing
from patchline.runtime.archive.scorer import ScoreJob
from patchline.runtime.archive.settings import make_settings
from patchline.runtime.archive.target import Target
from patchline.runtime.engine import open_engine
from patchline.runtime.progress import SilentSteps


def make_job(model: Path, images: Path, out: Path, **options: Any) -> ScoreJob:
    """A job of one thread; options are of the settings, and ``open_engine`` and ``bank``."""
    bank = options.pop("bank", None)
    given = functools.partial(open_engine, model, threads=1, bank=bank)
    opened = options.pop("open_engine", given)
    settings = make_settings(model, bank, **options)
    return ScoreJob(list_archive(images).root, out, model, bank, settings, 1, opened)


def score(
    job: ScoreJob, images: Path, score_parts: ScoreParts = score_here, *, again: bool = False
) -> ArchiveResult:
    """Score an archive as the command does."""
    target = Target(job.out)
    with target.held():
        work = target.begin(list_archive(images), str(images), job.settings, again=again)
        return score_missing(job, work, score_parts, SilentSteps())


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows as any reader of Parquet datasets finds them."""
    rows: list[dict[str, Any]] = pyarrow.dataset.dataset(out).to_table().to_pylist()
    return rows
