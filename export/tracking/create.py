"""The tracker that the settings ask for; only its own library is imported."""

from __future__ import annotations

from patchline.export.tracking.backend import Opening, Tell
from patchline.export.tracking.background import BackgroundTracker
from patchline.export.tracking.base import NoTracker, Tracker
from patchline.export.tracking.settings import TrackSettings
from patchline.runtime.cli.command import print_warning


def create_tracker(
    settings: TrackSettings, run_name: str, *, tell: Tell = print_warning
) -> Tracker:
    """Make a tracker; what keeps it from working at all is raised here, before the training.

    Args:
        settings: what to track, and where.
        run_name: of the run, unless the settings name it.
        tell: given one sentence at a time about failures and what was dropped; from any thread.

    Raises:
        ConfigurationError: W&B is to be used online, and there is no API key.
        MissingExtraError: the extra ``[track]`` is not installed.
        WriteError: the folder for the tracker's files cannot be written.
    """
    if settings.track == "none":
        return NoTracker()
    prepare = _wandb if settings.track == "wandb" else _tensorboard
    return BackgroundTracker(
        prepare(settings, settings.name or run_name, tell),
        log_every=settings.log_every,
        upload_pictures=settings.upload_pictures,
        finish_timeout_s=settings.finish_timeout_s,
        tell=tell,
    )


def _wandb(settings: TrackSettings, name: str, tell: Tell) -> Opening:
    from patchline.export.tracking.wandb_tracker import prepare_wandb

    return prepare_wandb(settings, name, tell)


def _tensorboard(settings: TrackSettings, name: str, tell: Tell) -> Opening:
    from patchline.export.tracking.tensorboard_tracker import prepare_tensorboard

    return prepare_tensorboard(settings, name)
