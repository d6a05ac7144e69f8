"""``export-model`` for several classes: what is to be made, where, and what became of it (issue 9).

A class that fails is a line of the table at the end, and the others are made.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from patchline.export.cli import export_classes
from patchline.export.cli.call import Call
from patchline.export.cli.export_report import print_export
from patchline.export.config import make_settings
from patchline.export.datasets import ALL, GoodPictures, find_classes, good_pictures, select_classes
from patchline.export.exporter import check_target
from patchline.export.fleet.freshness import out_of_date
from patchline.export.fleet.outcome import Outcome, Result, failed
from patchline.export.fleet.portable import device_on_ray, portable_output
from patchline.export.fleet.record import check_names
from patchline.export.fleet.recorded import Report, manifest_of
from patchline.export.fleet.summary import print_failure, print_summary
from patchline.export.making.output import Output
from patchline.export.making.shared_graphs import check_conversions
from patchline.export.making.training_checks import check_resumed
from patchline.export.precision.again import Job
from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.cli.command import print_error, stderr_console
from patchline.runtime.errors import PatchlineError

if TYPE_CHECKING:
    from patchline.export.evaluation.result import Metrics


T = TypeVar("T")


class Ledger:
    """What became of the classes so far, told as it happens.

    Args:
        output: says how it is told.
    """

    def __init__(self, output: Output) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._output = output

    @property
    def failures(self) -> int:
        """How many have failed."""
        return sum(found.result is Result.FAILED for found in self.outcomes.values())

    def done(self, report: Report, node: str | None = None) -> None:
        """A class was made, and its report printed."""
        manifest = report.manifest
        self.outcomes[manifest.class_name] = Outcome(
            manifest.class_name,
            Result.DONE,
            report.seconds,
            node,
            manifest.training_set.images,
            manifest.threshold.value,
        )

    def fail(self, class_name: str, error: str | BaseException, node: str | None = None) -> None:
        """A class failed: say so at once."""
        outcome = self.outcomes[class_name] = failed(class_name, error, node)
        print_error(f"{class_name}: {outcome.error}")
        if self._output.as_json:
            print_failure(outcome)

    def keep(self, job: Job) -> None:
        """A class is up to date."""
        name = job.pictures.class_name
        stderr_console().print(f"{name}: up to date", markup=False)
        path = self._output.folder / f"{name}.onnx"
        bank = path.with_suffix(BANK_SUFFIX) if job.settings.bank == "external" else None
        manifest = manifest_of(path, bank)
        self.outcomes[name] = Outcome(
            name,
            Result.UP_TO_DATE,
            images=manifest.training_set.images,
            threshold=manifest.threshold.value,
        )
        if self._output.as_json:
            graph = bank and export_classes.shared_graph(self._output.folder, job, manifest)
            print_export(bank or path, graph, 0.0, True, None, Result.UP_TO_DATE)

    def print(self, jobs: Sequence[Job]) -> None:
        """Print the table; classes of which nothing is known were not made.

        Args:
            jobs: all classes of the call that could be planned.
        """
        for job in jobs:
            name = job.pictures.class_name
            self.outcomes.setdefault(name, Outcome(name, Result.NOT_MADE))
        from rich.console import Console

        # Beside lines of JSON it is for who watches.
        console = stderr_console() if self._output.as_json else Console(highlight=False)
        print_summary(sorted(self.outcomes.values(), key=lambda found: found.class_name), console)


@dataclass(frozen=True)
class Fleet:
    """What a call for several classes gave.

    Attributes:
        places: where the bank is, by the class, of those that were made or are up to date.
        failures: how many classes failed.
    """

    places: dict[str, Literal["embedded", "external"]]
    failures: int


def class_names(call: Call) -> list[str]:
    """The classes that a call is about.

    Raises:
        ClassNotFoundError: the data folder does not exist.
    """
    return find_classes(call.data) if _is_all(call) else list(dict.fromkeys(call.names))


def export_fleet(call: Call) -> Fleet:
    """Make all classes that are to be made, and print what became of each.

    Args:
        call: what is asked for.

    Raises:
        PatchlineError: what is wrong with the call as a whole, before the first fit.
    """
    if call.ray is not None:  # before classes are looked at, which all may be up to date
        portable_output(call.output)
        device_on_ray(make_settings(call.fields, call.config).device, call.ray.gpus)
    ledger = Ledger(call.output)
    jobs = list(_planned(call, ledger))
    check_conversions(jobs, call.output)
    wanted = jobs if call.is_again or not _is_all(call) else _outdated(jobs, call, ledger)
    if wanted:
        check_resumed(wanted, call.output.folder, is_resumed=call.output.is_resumed)
    try:
        if call.ray is None:
            _in_turn(wanted, call.output, ledger)
        elif wanted:
            from patchline.export.cli.export_on_ray import export_on_ray

            export_on_ray(wanted, call.output, call.ray, ledger)
    finally:
        ledger.print(jobs)
    good = (Result.DONE, Result.UP_TO_DATE)
    made = [job for job in jobs if ledger.outcomes[job.pictures.class_name].result in good]
    places = {job.pictures.class_name: job.settings.bank for job in made}
    return Fleet(places, ledger.failures)


def _is_all(call: Call) -> bool:
    return ALL in call.names and ALL not in find_classes(call.data)


def _selected(call: Call, ledger: Ledger) -> Iterator[GoodPictures]:
    if not _is_all(call):  # a wrong name is refused before the first fit
        yield from select_classes(call.data, call.names)
        return
    names = find_classes(call.data)
    if not names:
        select_classes(call.data, call.names)  # says what it expects there
    for name in names:
        pictures = _or_failed(name, ledger, functools.partial(good_pictures, call.data, name))
        if pictures is not None:
            yield pictures


def _planned(call: Call, ledger: Ledger) -> Iterator[Job]:
    make_settings(call.fields, call.config)  # what is wrong for all is said once
    selected = list(_selected(call, ledger))
    check_names([pictures.class_name for pictures in selected])
    for pictures in selected:
        job = _or_failed(pictures.class_name, ledger, functools.partial(_plan, pictures, call))
        if job is not None:
            yield job


def _plan(pictures: GoodPictures, call: Call) -> Job:
    folder = call.output.folder
    plan = export_classes.plan_jobs
    (job,) = plan([pictures], call.fields, call.config, call.output.state, folder)
    check_target(folder, pictures.class_name, job.settings)
    return job


def _or_failed(name: str, ledger: Ledger, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except (PatchlineError, OSError) as error:
        ledger.fail(name, error)
        return None


def _outdated(jobs: Sequence[Job], call: Call, ledger: Ledger) -> list[Job]:
    wanted = []
    for job in jobs:
        name = job.pictures.class_name
        look = functools.partial(out_of_date, job, call.output, call.fields)
        reasons = _or_failed(name, ledger, look)
        if reasons is None:
            continue
        if not reasons:
            _or_failed(name, ledger, functools.partial(ledger.keep, job))
            continue
        stderr_console().print(f"{name}: {'; '.join(reasons)}", markup=False, soft_wrap=True)
        wanted.append(job)
    return wanted


def _in_turn(jobs: Sequence[Job], output: Output, ledger: Ledger) -> None:
    metrics: dict[str, Metrics] = {}
    for number, job in enumerate(jobs, start=1):
        sofar = f", {ledger.failures} failed" if ledger.failures else ""
        stderr_console().print(f"class {number} of {len(jobs)}{sofar}", markup=False)
        try:
            ledger.done(export_classes.export_class(job, output, jobs, None, metrics))
        except Exception as error:  # whatever it is, the others have nothing to do with it
            if not isinstance(error, (PatchlineError, OSError)):
                traceback.print_exc()  # a bug report needs it whole
            ledger.fail(job.pictures.class_name, error)
