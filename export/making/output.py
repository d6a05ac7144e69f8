"""Where the files of a class go, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchline.export.tracking.settings import TrackSettings


@dataclass(frozen=True)
class Output:
    """Where results go, and whether what the gate refuses goes there too.

    Attributes:
        folder: of the models.
        as_json: whether stdout gets JSON instead of a table.
        is_forced: whether a converted model is written in spite of the gate.
        sensitivity: chart of what INT8 costs in each layer, where one was asked for.
        int8_options: words of the INT8 options that were given on the command line.
        is_resumed: whether a training goes on from its checkpoint.
        track: who is told of the fit; ``None`` for nobody.
        state: folder of the states that models are made again from, where ``--state`` was given.
    """

    folder: Path
    as_json: bool
    is_forced: bool
    sensitivity: Path | None
    int8_options: tuple[str, ...] = ()
    is_resumed: bool = False
    track: TrackSettings | None = None
    state: Path | None = None
