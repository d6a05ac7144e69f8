"""A progress bar and Ctrl-C for a build that runs for minutes inside TensorRT."""

from __future__ import annotations

import threading
from typing import Any

from patchline.runtime.progress import Advance

UNITS = 1000


def make_monitor(trt: Any, advance: Advance, cancelled: threading.Event) -> Any:
    """A progress monitor for TensorRT.

    Args:
        trt: TensorRT's module.
        advance: told of the progress in thousandths; it never goes back.
        cancelled: ends the build at TensorRT's next step.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phases nest: a phase's share of its parent is one step of the parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._spans: dict[str, tuple[float, float, int]] = {}
            self._reached = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins where its parent stands."""
            with self._lock:
                start, end, steps = self._spans.get(parent_phase or "", (0.0, 1.0, 1))
                share = (end - start) / max(1, steps)
                begin = max(start, self._reached)
                self._spans[phase_name] = (begin, min(begin + share, end), num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """A phase is done."""
            with self._lock:
                span = self._spans.pop(phase_name, None)
                self._reach(span[1] if span else self._reached)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Whether to go on."""
            with self._lock:
                if phase_name in self._spans:
                    start, end, steps = self._spans[phase_name]
                    self._reach(start + (end - start) * (step + 1) / max(1, steps))
            return not cancelled.is_set()

        def _reach(self, share: float) -> None:
            if share > self._reached:
                self._reached = min(share, 1.0)
                advance(round(UNITS * self._reached))

    return Monitor()
