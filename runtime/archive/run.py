"""An archive scored: the parts that are missing, here or on a cluster, and what came of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from patchline.runtime.archive.part_file import NAMED_ERRORS, PartResult, part_name, read_result
from patchline.runtime.archive.parts import Part
from patchline.runtime.archive.scorer import ScoreJob, Scorer
from patchline.runtime.archive.target import Work
from patchline.runtime.progress import Advance, Steps

ScoreParts = Callable[[ScoreJob, Sequence[Part], Advance], Iterator[PartResult]]
"""Scores parts and gives each one's result as it is done, in any order; told of the pictures."""


@dataclass(frozen=True)
class ArchiveResult:
    """What a target holds after a call.

    Attributes:
        pictures: in all parts.
        anomalous: of them at or above the threshold.
        unreadable: of them that could not be read.
        not_finite: of them for which the model gave NaN or infinity.
        errors: the first few sentences about either.
        parts_written: by this call.
        parts_kept: from calls before.
        pictures_scored: by this call.
        seconds: that it took for them.
    """

    pictures: int
    anomalous: int
    unreadable: int
    not_finite: int
    errors: tuple[str, ...]
    parts_written: int
    parts_kept: int
    pictures_scored: int
    seconds: float

    @property
    def without_score(self) -> int:
        """Pictures that have an error in place of a score."""
        return self.unreadable + self.not_finite

    @property
    def pictures_per_second(self) -> float | None:
        """Of this call; ``None`` where it had nothing to score."""
        return self.pictures_scored / self.seconds if self.pictures_scored else None


def score_here(job: ScoreJob, parts: Sequence[Part], advance: Advance) -> Iterator[PartResult]:
    """Score parts in this process, one after the other; see :data:`ScoreParts`.

    Raises:
        PatchlineError: as for :meth:`~patchline.runtime.archive.scorer.Scorer.score`.
    """
    before = 0
    with Scorer(job) as scorer:
        for part in parts:
            start = before

            def tell(done: int, start: int = start) -> None:
                advance(start + done)

            yield scorer.score(part.number, [picture.path for picture in part.pictures], tell)
            before += len(part.pictures)


def score_missing(
    job: ScoreJob, work: Work, score_parts: ScoreParts, steps: Steps
) -> ArchiveResult:
    """Score what a target lacks and sum up all it holds then.

    Raises:
        DataError: a part that was kept is damaged or foreign.
        PatchlineError: as for ``score_parts``.
    """
    kept = [_kept(job, part) for part in work.parts if part.number in work.done]
    missing = work.missing
    total = sum(len(part.pictures) for part in missing)
    started = time.perf_counter()
    written = []
    if missing:
        with steps.step(f"scoring {total} pictures", total) as advance:
            written = list(score_parts(job, missing, advance))
    seconds = time.perf_counter() - started
    return _summed(kept, written, seconds)


def _kept(job: ScoreJob, part: Part) -> PartResult:
    return read_result(job.out / part_name(part.number), job.settings, len(part.pictures))


def _summed(
    kept: Sequence[PartResult], written: Sequence[PartResult], seconds: float
) -> ArchiveResult:
    every = sorted([*kept, *written], key=lambda result: result.number)
    return ArchiveResult(
        pictures=sum(result.pictures for result in every),
        anomalous=sum(result.anomalous for result in every),
        unreadable=sum(result.unreadable for result in every),
        not_finite=sum(result.not_finite for result in every),
        errors=tuple(error for result in every for error in result.errors)[:NAMED_ERRORS],
        parts_written=len(written),
        parts_kept=len(kept),
        pictures_scored=sum(result.pictures for result in written),
        seconds=seconds,
    )
