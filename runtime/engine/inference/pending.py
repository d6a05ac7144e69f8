"""Frames that an engine was given and has not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from patchline.runtime.engine.base import Prediction


class Part:
    """As many of the frames as a plan takes at once: ``count`` of them, in a slot.

    ``prediction`` is ``None`` until it was taken out of the slot.
    """

    def __init__(self, slot: int, count: int) -> None:
        self.slot, self.count = slot, count
        self.prediction: Prediction | None = None


class Pending:
    """Frames in flight, made by an engine's ``submit``."""

    def __init__(self, parts: Sequence[Part], take: Callable[[Part], Prediction]) -> None:
        self._parts = parts
        self._take = take

    def result(self) -> Prediction:
        """Wait for the frames; a second call gives the same again.

        Raises:
            EngineError: the engine failed, or was closed before.
        """
        taken = [self._take(part) for part in self._parts]
        if len(taken) == 1:
            return taken[0]
        return Prediction(
            np.concatenate([part.image_score for part in taken]),
            np.concatenate([part.anomaly_map for part in taken]),
            np.concatenate([part.influence_map for part in taken]),
        )
