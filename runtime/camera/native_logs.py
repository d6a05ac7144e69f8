"""Keep OpenCV's and FFmpeg's own chatter off stderr."""

from __future__ import annotations

import os

_QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}  # -8 is AV_LOG_QUIET


def silence_native_logs() -> None:
    """Silence the native libraries of this process; call it before cv2 is first imported.

    They print addresses with passwords, and lines that mean nothing to a user: what matters
    reaches the user as a sentence of ours. Variables that are already set win, so that
    ``OPENCV_LOG_LEVEL=DEBUG run-camera …`` still shows everything.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
