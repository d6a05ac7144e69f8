"""The live view: a window with the annotated frame."""

from __future__ import annotations

import os
import re
import sys
import threading

import cv2

from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.base import OutputEndedError
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.verdict import JudgedFrame

_KEYS_TO_CLOSE = frozenset({ord("q"), ord("Q"), 27})  # 27 is Esc
_TITLE = "Patchline"


class Window:
    """Shows each frame; ``q``, Esc or the window's own button ends the run.

    The window belongs to the thread that writes the first frame, and lives in no other: OpenCV's Qt
    would wait for ever for the thread that made it.

    Args:
        stop: set when the user closes the window.

    Raises:
        ConfigurationError: this OpenCV, or this machine, has no windows.
    """

    name = "the live view"

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._is_open = False
        _check_display()
        _check_windows()

    def write(self, judged: JudgedFrame) -> None:
        """Show one frame.

        Raises:
            OutputEndedError: no window can be opened.
            WriteError: the window system failed.
        """
        self._open()
        try:
            cv2.imshow(_TITLE, annotate(judged))
            key = cv2.waitKey(1) & 0xFF
            is_closed = cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise WriteError(f"the live view failed: {error.err}") from error
        if key in _KEYS_TO_CLOSE or is_closed:
            self._stop.set()

    def _open(self) -> None:
        if self._is_open:
            return
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise OutputEndedError(f"there is no live view: {error.err}") from error
        self._is_open = True

    def notify(self, notice: Notice) -> None:
        """Not used: it shows frames."""

    def close(self) -> None:
        """Close the window."""
        if self._is_open:
            cv2.destroyAllWindows()
            self._is_open = False


def _check_display() -> None:
    # Without a display Qt does not raise: it ends the process.
    is_unix_desktop = sys.platform.startswith("linux")
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if is_unix_desktop and not has_display:
        raise ConfigurationError(
            "this session has no display (DISPLAY is not set), so there is no live view: add "
            "--headless"
        )


def _check_windows() -> None:
    # Asked of the build, and not by opening a window: that would belong to this thread.
    gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if gui is not None and gui[1] == "NONE":
        raise ConfigurationError(
            f"this OpenCV ({cv2.__version__}) has no windows, so there is no live view: add "
            "--headless (or install opencv-python instead of opencv-python-headless)"
        )
