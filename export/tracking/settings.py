"""Settings of the tracking, from the command line or a library user's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_FOLDER = Path("runs")
"""Where trackers keep their files unless told otherwise."""

_Name = Annotated[str, Field(min_length=1, max_length=128)]


class TrackSettings(BaseModel):
    """What is tracked, where, and how often.

    Attributes:
        track: by what; ``none`` imports nothing and asks for nothing.
        project: Weights & Biases' project; with TensorBoard a folder below ``folder``.
        entity: W&B's user or team; ``None`` is the account's default.
        name: of the run; ``None`` leaves it to the caller.
        tags: W&B's labels of the run.
        notes: W&B's free text about the run.
        log_every: a number of the training is kept once in so many steps; metrics always are.
        folder: for the files of TensorBoard, and of W&B, offline or not.
        upload_model: whether an exported model goes to W&B as an artifact.
        upload_pictures: whether example pictures go to W&B or into TensorBoard's files.
        finish_timeout_s: how long the end of a run waits for what is still to be written.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    track: Literal["none", "wandb", "tensorboard"] = "none"
    project: _Name = "patchline"
    entity: _Name | None = None
    name: _Name | None = None
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    notes: str | None = None
    log_every: Annotated[int, Field(ge=1)] = 10
    folder: Path = DEFAULT_FOLDER
    upload_model: bool = True
    upload_pictures: bool = True
    finish_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0
