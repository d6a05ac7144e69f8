"""The outputs of ``run-camera``, in the order in which each frame is given to them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchline.runtime.camera.source import FrameSource
    from patchline.runtime.outputs.base import Output


def open_outputs(
    source: FrameSource, output: Path | None, headless: bool, stop: threading.Event
) -> list[Output]:
    """The live view unless ``headless``, the annotated output if there is one, the JSON lines.

    Raises:
        ConfigurationError: there can be no window here, or the output's path cannot be.
        WriteError: the output cannot be written.
    """
    from patchline.runtime.outputs.annotated import open_annotated_output
    from patchline.runtime.outputs.jsonl import JsonLines

    outputs: list[Output] = []
    if not headless:
        from patchline.runtime.outputs.window import Window

        outputs.append(Window(stop))
    if output is not None:
        outputs.append(open_annotated_output(output, source))
    # Last, so that its lines hold the time that the others took.
    return [*outputs, JsonLines(sys.stdout)]
