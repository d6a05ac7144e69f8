"""Weights & Biases: online with its files as a second copy, or offline with the files alone.

Its server is never waited for without a limit: a run that cannot begin online begins offline, and
the end gives up after a time (``finish_timeout``); what was not sent lies in the run's folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from patchline.export.tracking.backend import Opening, Tell
from patchline.export.tracking.base import Pictures, Status
from patchline.export.tracking.missing import missing_track_extra
from patchline.export.tracking.settings import TrackSettings
from patchline.export.tracking.thinning import METRICS
from patchline.export.tracking.wandb_access import Mode, wandb_mode
from patchline.export.tracking.wandb_helper import limit_exit
from patchline.runtime.contract import external_data_path, manifest_path
from patchline.runtime.files import check_writable

NAME = "Weights & Biases"
STEP, METRICS_STEP = "step", "metrics_step"
"""The two axes, as W&B calls them in its charts."""

SECONDS_PER_MIB = 1.0
"""Of an upload: the end waits for a model as long as a line of 8 Mbit/s needs."""

_EXIT_CODES: dict[Status, int] = {"finished": 0, "failed": 1, "interrupted": 255}
# Parts of the finish timeout. A training that is over before its run has begun is still kept
# offline; and W&B's own end, which also holds up the end of the process, leaves time for it.
_BEGIN, _END = 0.4, 0.4
_LONGEST_BEGIN_S = 20.0
_GRACE_S = 2.0


def prepare_wandb(settings: TrackSettings, name: str, tell: Tell) -> Opening:
    """Check all that can be checked here, and tell how the run is begun; no server is asked.

    Raises:
        ConfigurationError: no API key, or an unknown mode.
        MissingExtraError: wandb is not installed.
        WriteError: the folder cannot be written.
    """
    mode = wandb_mode()
    wandb = import_wandb()
    check_writable(settings.folder)
    is_uploaded = settings.upload_model and mode == "online"
    exit_s = _END * settings.finish_timeout_s
    return Opening(
        NAME,
        lambda: _open(wandb, settings, name, mode, tell),
        seconds_per_mib=SECONDS_PER_MIB if is_uploaded else 0.0,
        exit_s=exit_s,
        abandon=lambda: limit_exit(exit_s + _GRACE_S),
    )


def import_wandb() -> Any:
    """The library, silent, and without reports on itself to its makers unless they are asked for.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise missing_track_extra("wandb") from error
    return wandb


class WandbBackend:
    """One run.

    Args:
        wandb: the library.
        run: as ``wandb.init`` gives it.
        settings: which of it is sent.
    """

    def __init__(self, wandb: Any, run: Any, settings: TrackSettings) -> None:
        self._wandb, self._run, self._settings = wandb, run, settings
        self._axes: set[str] = set()
        self._models: list[tuple[Path, dict[str, Any]]] = []
        self.rescue = f"Send it later with: wandb sync {Path(run.dir).parent}"

    def log(self, values: dict[str, float], step: int) -> None:
        """Write numbers, each against its axis."""
        for axis, of_axis in _by_axis(values).items():
            for name in of_axis.keys() - self._axes:
                self._run.define_metric(name, step_metric=axis)
                self._axes.add(name)
            self._run.log({**of_axis, axis: step})

    def images(self, name: str, pictures: Pictures, step: int) -> None:
        """Write pictures with their captions, against the axis of the metrics."""
        shown = [self._wandb.Image(picture, caption=text) for text, picture in pictures.items()]
        self._run.log({name: shown, METRICS_STEP: step})

    def config(self, values: dict[str, Any]) -> None:
        """Write settings."""
        self._run.config.update(values, allow_val_change=True)

    def model(self, path: Path, metadata: dict[str, Any]) -> None:
        """Remember the model for the end: an upload asks the server, and would hold up the rest."""
        if self._settings.upload_model:
            self._models.append((path, metadata))

    def summary(self, values: dict[str, Any]) -> None:
        """Write results."""
        self._run.summary.update(values)

    def finish(self, status: Status) -> None:
        """Write everything and end the run.

        Raises:
            Exception: of wandb, where the server refuses or does not take all in time.
        """
        self._run.summary.update({"status": status})
        try:
            for path, metadata in self._models:
                self._upload(path, metadata)
        finally:
            self._run.finish(exit_code=_EXIT_CODES[status])

    def _upload(self, path: Path, metadata: dict[str, Any]) -> None:
        files = [path, *(file for file in _beside(path) if file.is_file())]
        artifact = self._wandb.Artifact(_artifact_name(path.stem), type="model", metadata=metadata)
        for file in files:
            artifact.add_file(str(file), name=file.name, skip_cache=True)
        uploaded = self._run.log_artifact(artifact)
        if not self._run.offline:
            mib = sum(file.stat().st_size for file in files) / (1 << 20)
            uploaded.wait(timeout=max(1, round(mib * SECONDS_PER_MIB)))


def _open(wandb: Any, settings: TrackSettings, name: str, mode: Mode, tell: Tell) -> WandbBackend:
    try:
        return WandbBackend(wandb, _begin(wandb, settings, name, mode), settings)
    except Exception as error:
        if mode != "online":
            raise
        backend = WandbBackend(wandb, _begin(wandb, settings, name, "offline"), settings)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        tell(
            f"{NAME} cannot be reached or refuses ({reason}); the run is kept on this machine. "
            f"{backend.rescue}"
        )
        return backend


def _begin(wandb: Any, settings: TrackSettings, name: str, mode: Mode) -> Any:
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        name=name,
        tags=settings.tags,
        notes=settings.notes,
        dir=str(settings.folder),
        mode=mode,
        settings=wandb.Settings(
            silent=True,
            console="off",  # neither is the terminal copied, nor the source code or its changes
            save_code=False,
            disable_code=True,
            disable_git=True,
            reinit="create_new",
            init_timeout=min(_BEGIN * settings.finish_timeout_s, _LONGEST_BEGIN_S),
            finish_timeout=_END * settings.finish_timeout_s,
            finish_timeout_raises=True,
        ),
    )


def _by_axis(values: dict[str, float]) -> dict[str, dict[str, float]]:
    by_axis: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        axis = METRICS_STEP if name.startswith(METRICS) else STEP
        by_axis.setdefault(axis, {})[name] = value
    return by_axis


def _beside(model: Path) -> tuple[Path, Path]:
    return manifest_path(model), external_data_path(model)


def _artifact_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:128] or "model"
