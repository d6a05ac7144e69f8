"""Every frame and notice to every output; an output that fails or ends takes no other with it."""

from __future__ import annotations

from collections.abc import Sequence

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import WriteError
from patchline.runtime.line.together import close_together
from patchline.runtime.outputs.base import Output
from patchline.runtime.outputs.queued import QueuedOutput
from patchline.runtime.verdict import JudgedFrame


class FanOut:
    """The outputs of a line, in the order in which each frame is given to them.

    Args:
        queued: each in a thread of its own.
        direct: called in the line's own thread: only those that never wait and never fail.
        is_live: whether the line goes on while no output works, which may come back; files can be
            judged again.
        clock: for the time that handing over takes.
    """

    def __init__(
        self,
        queued: Sequence[QueuedOutput],
        direct: Sequence[Output] = (),
        *,
        is_live: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.queued = tuple(queued)
        self._all: tuple[Output | QueuedOutput, ...] = (*direct, *queued)
        self._direct, self._is_live = tuple(direct), is_live
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether anybody learns of what is found from here on."""
        is_needed = bool(self._direct) or not self.queued
        return is_needed or not all(self._is_lost(output) for output in self.queued)

    @property
    def incomplete(self) -> list[str]:
        """Names of the outputs that failed at least once."""
        return [output.name for output in self.queued if output.failures]

    @property
    def failing(self) -> list[str]:
        """Names of the outputs that are failing now, or failed for good."""
        return [output.name for output in self.queued if output.is_failing]

    def write(self, judged: JudgedFrame) -> JudgedFrame:
        """Hand a frame over; the same with the time that took."""
        start_s = self._clock.monotonic()
        for output in self._all:
            output.write(judged)
        return judged.with_output_ms(1000.0 * (self._clock.monotonic() - start_s))

    def notify(self, notice: Notice) -> None:
        """Hand an event or a change of state over, from any thread."""
        for output in self._all:
            output.notify(notice)

    def close(self) -> None:
        """Let all outputs finish at once: together they take no longer than the slowest of them."""
        close_together(output.close for output in self.queued)
        for output in self._direct:
            output.close()

    def raise_if_lost(self) -> None:
        """See that what was found reaches somebody; to be called before the outputs are closed.

        Raises:
            WriteError: every output failed.
        """
        if self._direct or not self.queued:
            return
        if all(output.failures and self._is_lost(output) for output in self.queued):
            names = ", ".join(output.name for output in self.queued)
            raise WriteError(f"no output is left that works: {names} (see the warnings above)")

    def _is_lost(self, output: QueuedOutput) -> bool:
        return output.is_closed or (output.is_failing and not self._is_live)
