"""What is reported: a defect that was seen often enough, or a camera that sees otherwise."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from patchline.runtime.camera.states import StateChange
from patchline.runtime.verdict import JudgedFrame


class EventKind(str, enum.Enum):
    """What happened."""

    DEFECT = "defect"
    """Enough frames in a row were at or above the threshold (``--trigger``)."""

    DRIFT = "drift"
    """The scores of the line have moved away from those that the model calls normal."""


class Phase(str, enum.Enum):
    """An event is told twice: when it starts, and when it is over."""

    STARTED = "started"
    ENDED = "ended"


@dataclass(frozen=True)
class Region:
    """A part of a picture that lies above the map threshold.

    Attributes:
        x: left edge in pixels of the judged picture (after flip and crop).
        y: top edge, likewise.
        width: in pixels, at least 1.
        height: in pixels, at least 1.
        peak: the largest map value inside.
    """

    x: int
    y: int
    width: int
    height: int
    peak: float


@dataclass(frozen=True)
class Event:
    """A defect or a drift of one camera.

    Attributes:
        id: 32 hexadecimal digits, the same when it starts and when it ends.
        kind: what happened.
        phase: whether it starts or is over.
        camera: name of the camera.
        class_name: the product that was looked for.
        start: time of the first frame that belongs to it, with its time zone.
        end: of the last one; ``None`` while it goes on.
        first_frame: index of the first frame that belongs to it.
        last_frame: of the last one so far.
        frames: how many frames of it were at or above the threshold so far.
        peak_score: the largest score so far.
        threshold: what the scores were compared with.
        regions: of the frame with the largest score, largest peak first.
        detail: for a drift, what has moved and how far, as a sentence; otherwise empty.
        peak: the frame with the largest score so far, for its picture.
    """

    id: str
    kind: EventKind
    phase: Phase
    camera: str
    class_name: str
    start: datetime
    end: datetime | None
    first_frame: int
    last_frame: int
    frames: int
    peak_score: float
    threshold: float
    regions: tuple[Region, ...] = ()
    detail: str = ""
    peak: JudgedFrame | None = field(default=None, compare=False, repr=False)

    @property
    def message_id(self) -> str:
        """Tells this message from every other: ``ID-started``, ``ID-ended``."""
        return f"{self.id}-{self.phase.value}"


Notice = Event | StateChange
"""What outputs are told besides the frames."""
