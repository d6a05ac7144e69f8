"""Options of ``export-model`` about tracking: who is told of a fit, and what."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from patchline.runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from patchline.export.making.output import Output
    from patchline.export.precision.again import Job
    from patchline.export.tracking.base import Tracker
    from patchline.export.tracking.settings import TrackSettings


class TrackerName(str, enum.Enum):
    """Who is told of a fit."""

    NONE = "none"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"


def track_settings(track: TrackerName | None, **options: Any) -> TrackSettings | None:
    """Settings of the tracking, ``None`` where nothing is tracked.

    Args:
        track: who is told.
        options: fields of :class:`TrackSettings`; ``None`` where one was not given, and ``tags`` as
            ``first,second``.

    Raises:
        ConfigurationError: options without ``--track``, or with values that cannot be; all of
            them are named.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if track is None or track is TrackerName.NONE:
        if given:
            raise ConfigurationError(
                f"{', '.join(map(_word, given))} would do nothing, since nothing is tracked: add "
                "--track wandb or --track tensorboard, or leave that out"
            )
        return None
    from pydantic import ValidationError

    from patchline.export.config import parse_names
    from patchline.export.tracking.settings import TrackSettings

    if "tags" in given:
        given["tags"] = parse_names(given["tags"])
    try:
        return TrackSettings(track=track.value, **given)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problems(error))) from error


def open_tracker(job: Job, output: Output, jobs: Sequence[Job]) -> Tracker:
    """The tracker of one class, told its settings; one that does nothing where none is asked for.

    Args:
        job: the class.
        output: says who is told.
        jobs: all classes of the call; each has a run of its own.

    Raises:
        ConfigurationError: the tracker cannot be used as it is set up here.
        MissingExtraError: its package is not installed.
    """
    if output.track is None:
        from patchline.export.tracking.base import NoTracker

        return NoTracker()
    from patchline.export.tracking.create import create_tracker

    name, given = job.pictures.class_name, output.track.name
    run_name = name if given is None else f"{given}-{name}" if len(jobs) > 1 else given
    tracker = create_tracker(output.track.model_copy(update={"name": run_name}), run_name)
    about = {"class": name, "pictures": len(job.pictures.paths)}
    tracker.config({**about, **job.settings.model_dump(mode="json", exclude=_unused(job))})
    return tracker


def _unused(job: Job) -> set[str]:
    """Fields of the settings that the method does not have."""
    from patchline.export.config_problems import OF_A_BANK
    from patchline.export.config_train import DISTILLATION

    return {*OF_A_BANK, "score"} if job.settings.method == DISTILLATION else {"train"}


def _problems(error: ValidationError) -> list[str]:
    return [
        f"{_word(str(item['loc'][0]))}: {item['msg'].lower()}, got {item['input']!r}"
        for item in error.errors()
    ]


def _word(name: str) -> str:
    """The option of a field, such as ``--track-log-every`` or ``--track-model``."""
    return f"--track-{name.removeprefix('upload_').replace('_', '-')}"
