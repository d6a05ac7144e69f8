"""An RTSP camera on this machine: GStreamer's server, run by the system's Python.

::

    pytestmark = needs_rtsp_server          # skips, with the reason, where it is not installed

    with RtspServer() as camera:            # serves, or fails the test
        source = open_source(camera.uri)    # rtsp://127.0.0.1:PORT/line
        camera.kill()                       # SIGKILL: connections break, the port refuses
        camera.start()                      # serves again at the same address
        camera.pause()                      # SIGSTOP: connections stay open and silent
        camera.resume()

Debian: ``apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly
gstreamer1.0-plugins-good gstreamer1.0-plugins-bad``. The pictures are GStreamer's test pattern with
a moving ball, ``width`` x ``height``. The server ends with the process that started it.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

PYTHON = "/usr/bin/python3"
"""The system's own: Debian's bindings of GStreamer belong to it."""

_START_S = 30.0

_ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph265pay",
    "mjpeg": "jpegenc ! rtpjpegpay",
}

_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

port, launch, user, password = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(launch)
factory.set_shared(True)
if user:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    role = Gst.Structure.new_empty("user")
    role.set_value("media.factory.access", True)
    role.set_value("media.factory.construct", True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role_from_structure(role)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/line", factory)
if not server.attach(None):
    sys.exit("the port is taken")
loop = GLib.MainLoop()
# The pipe ends with the process at its other end, however that ends.
GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
print("ready", flush=True)
loop.run()
"""

_CHECK = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
names = ("videotestsrc", "x264enc", "rtph264pay", "jpegenc", "rtpjpegpay")
missing = [name for name in names if Gst.ElementFactory.find(name) is None]
assert not missing, missing
"""


@functools.cache
def why_unavailable() -> str:
    """Why no server can be started here, or nothing."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    done = subprocess.run(
        [PYTHON, "-c", _CHECK], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else "it does not start")


needs_rtsp_server = pytest.mark.skipif(
    "RtspServer.why_unavailable()",  # as text it is looked at when the test runs, not before
    reason="GStreamer's RTSP server is not here: apt-get install gir1.2-gst-rtsp-server-1.0 "
    "python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly",
)
"""Mark of tests that start an :class:`RtspServer`, which their module imports by this name."""


class RtspServer:
    """See the module.

    Args:
        codec: ``h264``, ``h265`` (needs x265enc) or ``mjpeg``.
        fps: frames per second.
        width: of the pictures.
        height: of the pictures.
        user_password: ``"user:password"`` that must be given, in plain HTTP Basic.
    """

    why_unavailable = staticmethod(why_unavailable)

    def __init__(
        self,
        codec: str = "h264",
        *,
        fps: int = 25,
        width: int = 160,
        height: int = 120,
        user_password: str | None = None,
    ) -> None:
        self.port = _free_port()
        caps = f"video/x-raw,width={width},height={height},framerate={fps}/1"
        self._launch = (
            f"( videotestsrc is-live=true pattern=ball ! {caps} ! videoconvert ! "
            f"video/x-raw,format=I420 ! {_ENCODERS[codec]} name=pay0 pt=96 )"
        )
        self._user, _, self._password = (user_password or "").partition(":")
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        """The address, without user and password."""
        return f"rtsp://127.0.0.1:{self.port}/line"

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.kill()

    def start(self) -> None:
        """Serve, at the same address as before; tries again while the port is not free yet."""
        deadline = time.monotonic() + _START_S
        while True:
            self._process = self._spawn()
            if self._is_ready(deadline):
                return
            error = self._end() or "it did not get ready"
            assert time.monotonic() < deadline, f"the RTSP server does not start: {error}"
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a power cut would. Harmless where it does not run."""
        self._end()

    def pause(self) -> None:
        """Let it fall silent with its connections open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _spawn(self) -> subprocess.Popen[str]:
        arguments = [str(self.port), self._launch, self._user, self._password]
        return subprocess.Popen(
            [PYTHON, "-c", _SERVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _is_ready(self, deadline: float) -> bool:
        assert self._process is not None
        assert self._process.stdout is not None
        wait_s = max(deadline - time.monotonic(), 0.0)
        is_readable, _, _ = select.select([self._process.stdout], [], [], wait_s)
        return bool(is_readable) and self._process.stdout.readline().strip() == "ready"

    def _end(self) -> str:
        """End the process; what it wrote to stderr."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()  # SIGKILL ends a stopped process too
        _, errors = process.communicate(timeout=10)
        return errors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
