"""One class made under its lock, with the record of what it was made from written last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.export.coreset_sharded import RunShards
from patchline.export.fleet.made_from import file_digests, made_from
from patchline.export.fleet.record import save_record
from patchline.export.making.make_class import Made, make_class
from patchline.export.making.output import Output
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.precision.again import Job
from patchline.export.precision.converted import Judged
from patchline.export.state import TrainingState, state_path
from patchline.export.tracking.base import Tracker
from patchline.runtime.bank import load_bank
from patchline.runtime.contract import Manifest, load_manifest, manifest_path
from patchline.runtime.files import named_stages

if TYPE_CHECKING:
    from patchline.export.tracking.metrics_log import MetricsLog


@dataclass(frozen=True)
class Report:
    """A class that was made.

    Attributes:
        made: its files.
        seconds: that it took.
        manifest: of the model.
    """

    made: Made
    seconds: float
    manifest: Manifest

    @property
    def path(self) -> Path:
        """The file of the class: the model, or its bank."""
        return self.made.bank or self.made.model

    @property
    def graph(self) -> Path | None:
        """The graph that the bank is for, if it is a bank."""
        return self.made.model if self.made.bank else None


def make_recorded(
    job: Job,
    output: Output,
    steps: TimedSteps,
    tracker: Tracker,
    *,
    jobs: Sequence[Job] = (),
    base: TrainingState | None = None,
    metrics: MetricsLog | None = None,
    run_shards: RunShards = map,
) -> Report:
    """Make one class, and write beside it what it was made from.

    Who calls holds the lock of the class. The arguments and errors are those of
    :func:`patchline.export.making.make_class.make_class`.
    """
    started = time.monotonic()
    with named_stages(job.pictures.class_name):  # the next one knows what a killed fit left
        record = made_from(job, output, base)
        made = make_class(
            job,
            output,
            steps,
            tracker,
            jobs=jobs,
            base=base,
            metrics=metrics,
            run_shards=run_shards,
        )
        path = made.bank or made.model
        files = [made.model, state_path(path), *([made.bank] if made.bank else [])]
        save_record(record.model_copy(update={"files": file_digests(files)}), output.folder)
    return Report(made, time.monotonic() - started, manifest_of(path, made.bank))


def manifest_of(path: Path, bank: Path | None) -> Manifest:
    """The manifest of a class: beside its model, or in its bank.

    Raises:
        ModelError: it cannot be read.
    """
    return load_bank(bank).manifest if bank else load_manifest(manifest_path(path))


def light(made: Made, folder: Path) -> Made:
    """The same without what only the machine that made it needs, for a folder by another name.

    Args:
        made: as it was made, maybe with graphs and banks in memory.
        folder: of its files, as its user calls it.
    """
    given = made.converted
    judged = given and Judged(given.manifest, given.float32, given.pairs, given.gate)
    bank = made.bank and folder / made.bank.name
    return Made(folder / made.model.name, bank, judged, made.epochs)
