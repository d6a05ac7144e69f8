"""A network camera on this machine: MJPEG over HTTP."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import cv2

from .fakes import gray


class MjpegServer:
    """Serves ``frames`` pictures, picture i of brightness 4 i, as fast as they are read.

    Then the stream stays open and silent until ``may_end`` is set. With ``answers`` False the
    connection is taken and nothing is ever said.
    """

    def __init__(self) -> None:
        self.frames = 30
        self.answers = True
        self.may_end = threading.Event()
        handler = type("Handler", (_Handler,), {"camera": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=_FAST)

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/line.mjpg"

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.may_end.set()
        self._server.shutdown()
        self._server.server_close()  # waits for the handlers
        self._thread.join()


_FAST = {"poll_interval": 0.01}


class _Handler(http.server.BaseHTTPRequestHandler):
    camera: MjpegServer

    def do_GET(self) -> None:
        if self.camera.answers:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                self._send_frames()
            except (BrokenPipeError, ConnectionResetError):
                return
        self.camera.may_end.wait()

    def _send_frames(self) -> None:
        for index in range(self.camera.frames):
            content = cv2.imencode(".jpg", gray(4 * index))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(head.encode() + content + b"\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
