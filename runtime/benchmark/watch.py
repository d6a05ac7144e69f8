"""What holds around a measurement: the date, the machine, its state before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchline.runtime.benchmark.device_state import DeviceState, read_state, state_warnings
from patchline.runtime.benchmark.document import Circumstances
from patchline.runtime.benchmark.machine import describe_machine
from patchline.runtime.benchmark.timing import Limits
from patchline.runtime.clock import SYSTEM_CLOCK, Clock


class Watch:
    """Looks at the machine when it is made, and again at the end.

    Args:
        limits: of the measurement.
        read: reads the state.
        clock: gives the date.
    """

    def __init__(
        self,
        limits: Limits,
        read: Callable[[], DeviceState] = read_state,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limits, self._read = limits, read
        self._date, self._machine = clock.now(), describe_machine()
        self._before = read()

    def end(self, warnings: Sequence[str]) -> Circumstances:
        """All of it.

        Args:
            warnings: of the measurement; those of the machine are added.
        """
        after = self._read()  # first, while the clocks are what they were
        found = [*warnings, *state_warnings(self._before, after)]
        return Circumstances(self._date, self._limits, self._machine, self._before, after, found)
