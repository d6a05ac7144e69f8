"""What ``run-camera`` was asked to do with its verdicts, and where a line keeps its state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OutputOptions:
    """What was asked for; ``None`` where it was not.

    Attributes:
        line: name of the line.
        state: folder of what must survive a restart.
        printed: ``frames``, ``events`` or ``all`` on stdout.
        has_window: whether a live view is shown.
        annotated: video or folder for annotated frames.
        log: file for all JSON lines.
        log_size: of one such file, as ``100M``.
        log_files: how many are kept.
        store: folder for pictures of anomalous frames.
        store_every: keep every so many good frames, too.
        store_size: of the whole folder.
        store_days: age at which pictures go.
        mqtt: address of the broker.
        webhook: address that events are posted to.
        webhook_picture: whether the annotated picture goes along.
        hooks: ``module:factory`` of outputs of the user's own.
        hook_options: ``NAME=VALUE`` for their factories.
    """

    line: str
    state: Path
    printed: str = "frames"
    has_window: bool = False
    annotated: Path | None = None
    log: Path | None = None
    log_size: str | None = None
    log_files: int | None = None
    store: Path | None = None
    store_every: int | None = None
    store_size: str | None = None
    store_days: float | None = None
    mqtt: str | None = None
    webhook: str | None = None
    webhook_picture: bool = False
    hooks: Sequence[str] = ()
    hook_options: Sequence[str] = ()


def state_folder(given: Path | None, line: str) -> Path:
    """Where a line keeps what must survive a restart; nothing is made there yet.

    Args:
        given: ``--state``; otherwise systemd's ``StateDirectory``, or the user's own folder.
        line: name of the line.
    """
    if given is not None:
        return given
    of_service = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if of_service:
        return Path(of_service)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "patchline" / line
