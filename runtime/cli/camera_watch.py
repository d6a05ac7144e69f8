"""What ends ``run-camera`` when a part of it hangs, and what systemd is told meanwhile."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from patchline.runtime.cli.command import EXIT_ERROR, print_error, print_warning

if TYPE_CHECKING:
    from patchline.runtime.line.camera import Camera
    from patchline.runtime.line.fan_out import FanOut
    from patchline.runtime.line.systemd import Systemd
    from patchline.runtime.line.watchdog import Heartbeat

INSPECTION_LIMIT_S = 60.0
"""Frames that take longer from being taken up to their verdicts: the engine is wedged."""

_CAMERA_LIMIT_S, _OUTPUT_LIMIT_S = 30.0, 60.0
_LAST_WORDS_S = 15.0  # more than the outputs take to finish, at most


@contextlib.contextmanager
def watched(
    cameras: Sequence[Camera],
    outputs: FanOut,
    heartbeat: Heartbeat,
    systemd: Systemd,
    stop: threading.Event,
) -> Iterator[None]:
    """Restart what is wedged, and tell systemd that the line runs, while the context is open."""
    from patchline.runtime.line.watchdog import Watchdog

    watchdog = Watchdog(lambda stage, sentence: _end_wedged(sentence, outputs, stop))
    watchdog.register("the inspection", heartbeat, INSPECTION_LIMIT_S)
    for camera in cameras:
        beat = functools.partial(getattr, camera.reader, "heartbeat_s")
        watchdog.register(camera.name, beat, _CAMERA_LIMIT_S, camera.reader.reopen)
    # An output that hangs for good is no reason to end the inspection.
    outputs_watchdog = Watchdog(lambda stage, sentence: print_warning(sentence))
    for output in outputs.queued:
        beat = functools.partial(getattr, output, "heartbeat_s")
        outputs_watchdog.register(output.name, beat, _OUTPUT_LIMIT_S, output.restart)
    for one in (watchdog, outputs_watchdog):
        one.start()
    systemd.ready(f"{len(cameras)} camera{'' if len(cameras) == 1 else 's'}")
    systemd.watch(
        lambda: watchdog.healthy and not any(camera.reader.needs_restart for camera in cameras)
    )
    try:
        yield
    finally:
        systemd.stopping()
        for closing in (systemd, watchdog, outputs_watchdog):
            closing.close()


def _end_wedged(sentence: str, outputs: FanOut, stop: threading.Event) -> None:
    """Leave, so that whoever started the process starts it again: a native call never returns."""
    # First of all: whoever reads stderr may have stopped, too.
    timer = threading.Timer(_LAST_WORDS_S, os._exit, (EXIT_ERROR,))
    timer.daemon = True
    timer.start()
    stop.set()
    print_error(sentence)
    outputs.close()  # the loop does not come to it; a video without its index cannot be played
