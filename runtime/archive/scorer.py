"""One part through an engine: read, judged in batches, boxed, and written whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchline.runtime.archive.part_file import (
    NAMED_ERRORS,
    PartResult,
    Row,
    part_content,
    part_name,
)
from patchline.runtime.archive.read_ahead import ReadPicture, read_ahead
from patchline.runtime.archive.settings import Settings, model_digests
from patchline.runtime.archive.thumbnail import thumbnail
from patchline.runtime.decisions.regions import find_regions
from patchline.runtime.engine import Engine, Prediction
from patchline.runtime.errors import ModelError
from patchline.runtime.files import write_atomically
from patchline.runtime.progress import Advance


@dataclass(frozen=True)
class ScoreJob:
    """What a process needs to score parts; it can be sent to another one.

    Attributes:
        root: the archive.
        out: the target folder.
        model: the file that the engine opens.
        bank: a product's bank, for a model without one.
        settings: what is written.
        readers: threads that read pictures, at least 1.
        open_engine: opens the engine.
    """

    root: Path
    out: Path
    model: Path
    bank: Path | None
    settings: Settings
    readers: int
    open_engine: Callable[[], Engine]


class Scorer:
    """Scores parts; the engine is opened for the first one and closed with the context.

    Args:
        job: what to score by.
    """

    def __init__(self, job: ScoreJob) -> None:
        self._job = job
        self._opened: Engine | None = None

    def score(
        self, number: int, paths: Sequence[str], advance: Advance = lambda done: None
    ) -> PartResult:
        """Score one part and write its file.

        Args:
            number: of the part.
            paths: its pictures, relative to the archive.
            advance: called with the number of its pictures that are done.

        Raises:
            ModelError: model or bank are not those of the job, or do not open.
            EngineError: the engine failed.
            WriteError: the part cannot be written.
        """
        engine, job, rows = self._engine(), self._job, list[Row]()
        size = engine.manifest.model_size
        with contextlib.closing(read_ahead(job.root, paths, size, job.readers)) as pictures:
            while batch := list(itertools.islice(pictures, job.settings.batch_size)):
                rows += _judged(engine, batch, job.settings)
                advance(len(rows))
        result = _result(number, rows, engine.description, job.settings.threshold)
        content = part_content(rows, job.settings, result)
        write_atomically(job.out / part_name(number), content)
        return result

    def close(self) -> None:
        """Close the engine. A second call does nothing."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _engine(self) -> Engine:
        if self._opened is None:
            _check_model(self._job)
            self._opened = self._job.open_engine()
        return self._opened


def _check_model(job: ScoreJob) -> None:
    # On another node the same path may be another file.
    found = model_digests(job.model, job.bank)
    expected = job.settings.model_sha256, job.settings.bank_sha256
    for path, digest, wanted in zip((job.model, job.bank), found, expected, strict=True):
        if digest != wanted:
            raise ModelError(
                f"{path} on {platform.node()} has the digest {str(digest)[:12]}…, and "
                f"{str(wanted)[:12]}… is scored with. Put the same file there, or on a folder that "
                "all machines share"
            )


def _judged(engine: Engine, batch: Sequence[ReadPicture], settings: Settings) -> list[Row]:
    """Rows for a batch, in its order; pictures that could not be read are no part of the call."""
    frames = [read.frame for read in batch if read.frame is not None]
    if not frames:
        return [Row(read.path, error=read.error) for read in batch]
    prediction = engine.infer(np.stack(frames))
    at = itertools.count()
    return [
        Row(read.path, error=read.error)
        if read.frame is None
        else _row(read, prediction, next(at), settings)
        for read in batch
    ]


def _row(read: ReadPicture, prediction: Prediction, at: int, settings: Settings) -> Row:
    score, anomaly_map = float(prediction.image_score[at]), prediction.anomaly_map[at]
    picture_size = read.height, read.width
    if not (math.isfinite(score) and np.isfinite(anomaly_map).all()):
        error = f"the model gave NaN or infinity for {read.path}"
        return Row(read.path, width=read.width, height=read.height, error=error)
    return Row(
        read.path,
        score,
        find_regions(anomaly_map, settings.map_value, picture_size) if settings.has_boxes else None,
        read.width,
        read.height,
        None,
        thumbnail(anomaly_map, settings.map_value, picture_size, settings.thumbnails_px)
        if settings.thumbnails_px
        else None,
    )


def _result(number: int, rows: Sequence[Row], engine: str, threshold: float) -> PartResult:
    errors = [row.error for row in rows if row.error is not None]
    not_finite = sum(row.score is None and row.width is not None for row in rows)
    return PartResult(
        number,
        len(rows),
        sum(row.score is not None and row.score >= threshold for row in rows),
        len(errors) - not_finite,
        not_finite,
        engine,
        tuple(errors[:NAMED_ERRORS]),
    )
