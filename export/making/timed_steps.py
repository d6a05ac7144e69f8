"""How long each step of a fit takes, for the tracking."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from patchline.runtime.progress import Advance, Steps

_FIGURES = {
    "Embedding": "time/embedding_s",
    "Choosing the memory bank": "time/coreset_s",
    "Choosing the noise's memory banks": "time/coreset_s",
    "Training": "time/training_s",
    "Exporting": "time/export_s",
}
"""How a step's name begins, and what its time is called."""


class TimedSteps:
    """Shows the steps as another does, and adds up how long they take.

    Attributes:
        times: seconds by name, of the steps that were shown to their end.
    """

    def __init__(self, shown: Steps, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: shown: shows the steps. clock: seconds."""
        self._shown, self._clock = shown, clock
        self.times: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Iterator[Advance]:
        """Show and time one step."""
        figures = [figure for beginning, figure in _FIGURES.items() if name.startswith(beginning)]
        with self.timed(*figures), self._shown.step(name, total) as advance:
            yield advance

    @contextlib.contextmanager
    def timed(self, *figures: str) -> Iterator[None]:
        """Time what is done while the context is open, under these names."""
        started = self._clock()
        yield
        for figure in figures:
            self.times[figure] = self.times.get(figure, 0.0) + self._clock() - started
