"""Code run by the system's Python, to which Debian's OpenCV and GStreamer belong."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

PYTHON = "/usr/bin/python3"
_ROOT = Path(__file__).parents[2]

_PARSER = """
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
names = ("rtspsrc", "decodebin", "videoconvert", "appsink", "videotestsrc", "v4l2src", "jpegdec")
missing = [name for name in names if Gst.ElementFactory.find(name) is None]
assert not missing, missing
"""

_OPENCV = """
import cv2
assert cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), "OpenCV has no GStreamer"
"""


def run_system_python(code: str, *arguments: str, folder: Path | None = None) -> str:
    """What ``code`` prints; ``patchline.runtime`` can be imported where ``folder`` is given.

    Args:
        code: of a program.
        arguments: its ``sys.argv[1:]``.
        folder: an empty one, which becomes a package folder.
    """
    environment = dict(os.environ)
    if folder is not None:
        (folder / "patchline").mkdir()
        (folder / "patchline/runtime").symlink_to(_ROOT / "runtime")
        environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [PYTHON, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def why_no_parser() -> str:
    """Why GStreamer's own parser cannot be asked here, or nothing."""
    return _why_not(_PARSER)


@functools.cache
def why_no_opencv() -> str:
    """Why there is no OpenCV with GStreamer here, or nothing."""
    return _why_not(_OPENCV)


def _why_not(code: str) -> str:
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    try:
        run_system_python(code)
    except AssertionError as error:
        return (str(error).strip().splitlines() or ["it does not start"])[-1]
    return ""
