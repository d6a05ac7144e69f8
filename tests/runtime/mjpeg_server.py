"""A network camera on this machine that misbehaves on command: MJPEG over HTTP on 127.0.0.1.

::

    with CameraServer() as camera:          # serves at once
        source = open_source(camera.uri)    # http://127.0.0.1:PORT/line.mjpg
        camera.wait_for_sent(5)             # good pictures, on whatever connection
        camera.mode = Mode.STALL            # holds for open connections and for new ones
        camera.mode = Mode.FRAMES           # good pictures again
        camera.cut()                        # ends the open connections; new ones are served

Good picture ``n`` (counted over all connections, from 0) is plain, of brightness
``brightness_of(n)``; :func:`is_whole` tells a good picture from a torn or invented one.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import http.server
import socket
import threading
import time
from typing import Any

import cv2
import numpy as np

from .fakes import gray

BOUNDARY = "frame"
LEAST, STEP, LEVELS = 20, 4, 20
"""Brightness stays below 100: decoders fill what is missing with 128."""


class Mode(enum.Enum):
    """What is sent from now on."""

    FRAMES = "frames"
    """Good pictures, ``fps`` a second."""

    STALL = "stall"
    """Nothing; the connection stays open. A new connection gets the HTTP head and nothing else."""

    SILENT = "silent"
    """As STALL, and a new connection gets not even the HTTP head."""

    GARBAGE = "garbage"
    """Well-formed parts that hold noise instead of a JPEG."""

    NOISE = "noise"
    """Noise without any parts."""

    HALF = "half"
    """Well-formed parts that hold the first half of a JPEG."""

    HALF_THEN_CLOSE = "half then close"
    """Half of an announced JPEG, then the connection ends; new ones likewise."""

    SHORT = "short"
    """Parts that announce a whole JPEG and hold half of it; the next part follows at once."""

    CLOSE = "close"
    """Every connection ends at once, new ones before the HTTP head."""


class CameraServer:
    """See the module.

    Attributes:
        mode: see :class:`Mode`; set it at any time.
        fps: of good, garbage and half pictures.
        width, height: of the pictures.
        then: ``(count, mode)``: after so many good pictures the mode becomes this one.
        sent: good pictures so far.
        connections: taken so far.
        user_password: ``"user:password"`` that HTTP Basic must give, or ``None``.
        requests: the path of each request.
    """

    def __init__(self, *, fps: float = 50.0, width: int = 64, height: int = 48) -> None:
        self.mode = Mode.FRAMES
        self.fps = fps
        self.width, self.height = width, height
        self.then: tuple[int, Mode] | None = None
        self.sent = 0
        self.connections = 0
        self.user_password: str | None = None
        self.requests: list[str] = []
        self._changed = threading.Condition()
        self._is_over = threading.Event()
        self._open: set[socket.socket] = set()
        handler = type("Handler", (_Handler,), {"camera": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            name="mjpeg-server",
            daemon=True,
        )

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/line.mjpg"

    def __enter__(self) -> CameraServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._is_over.set()
        self.cut()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def cut(self) -> None:
        """End the open connections; new ones are served."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for_sent(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until ``count`` more good pictures were sent; an AssertionError otherwise."""
        with self._changed:
            goal = self.sent + count
            assert self._changed.wait_for(lambda: self.sent >= goal, timeout_s), self.sent

    def wait_for_connections(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until ``count`` connections were taken in all."""
        with self._changed:
            is_there = self._changed.wait_for(lambda: self.connections >= count, timeout_s)
            assert is_there, self.connections

    def _took(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            self._open.add(connection)
            self._changed.notify_all()

    def _lost(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)

    def _next_number(self) -> int:
        with self._changed:
            number = self.sent
            self.sent += 1
            if self.then is not None and self.sent == self.then[0]:
                self.mode = self.then[1]
            self._changed.notify_all()
            return number

    def _picture(self, number: int) -> bytes:
        return jpeg(number, self.width, self.height)


def brightness_of(number: int) -> int:
    """Brightness of good picture ``number``."""
    return LEAST + STEP * (number % LEVELS)


def jpeg(number: int, width: int = 64, height: int = 48) -> bytes:
    """Good picture ``number`` as a JPEG."""
    encoded = cv2.imencode(".jpg", gray(brightness_of(number), height, width))[1]
    return bytes(encoded.tobytes())


def number_of(image: Any) -> int:
    """The number of a good picture, modulo :data:`LEVELS`."""
    return round((float(np.mean(image)) - LEAST) / STEP)


def is_whole(image: Any) -> bool:
    """Whether it is one of the good pictures, and all of it."""
    nearest = brightness_of(number_of(image) % LEVELS)
    return bool(np.abs(np.asarray(image, np.int16) - nearest).max() <= 2)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(http.server.BaseHTTPRequestHandler):
    camera: CameraServer

    def handle(self) -> None:
        self.camera._took(self.connection)
        try:
            super().handle()
        except OSError:
            return
        finally:
            self.camera._lost(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return

    def do_GET(self) -> None:
        self.camera.requests.append(self.path)
        if not self._may_enter() or not self._wait_to_answer():
            return
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        while not self.camera._is_over.is_set() and self._send_next(self.camera.mode):
            time.sleep(1.0 / self.camera.fps)
        self.close_connection = True

    def _may_enter(self) -> bool:
        wanted = self.camera.user_password
        given = self.headers.get("Authorization", "")
        if wanted is None or given == "Basic " + base64.b64encode(wanted.encode()).decode():
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="camera"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def _wait_to_answer(self) -> bool:
        while self.camera.mode is Mode.SILENT and not self.camera._is_over.is_set():
            time.sleep(0.01)
        return self.camera.mode is not Mode.CLOSE

    def _send_next(self, mode: Mode) -> bool:
        """Send what the mode says; whether the connection goes on."""
        if mode in (Mode.STALL, Mode.SILENT):
            return not self._is_gone()
        if mode is Mode.CLOSE:
            return False
        if mode is Mode.NOISE:
            self.wfile.write(_noise(2000))
            return True
        if mode is Mode.GARBAGE:
            self._send_part(_noise(500))
            return True
        if mode in (Mode.HALF, Mode.HALF_THEN_CLOSE, Mode.SHORT):
            return self._send_half(mode)
        self._send_part(self.camera._picture(self.camera._next_number()))
        return True

    def _send_half(self, mode: Mode) -> bool:
        whole = self.camera._picture(0)
        half = whole[: _scan(whole) + (len(whole) - _scan(whole)) // 2]
        if mode is Mode.HALF:
            self._send_part(half)
            return True
        self._send_part(half, announced_bytes=len(whole))
        return mode is Mode.SHORT

    def _send_part(self, content: bytes, announced_bytes: int | None = None) -> None:
        length = len(content) if announced_bytes is None else announced_bytes
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
        self.wfile.write(head.encode() + content + b"\r\n")

    def _is_gone(self) -> bool:
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _scan(content: bytes) -> int:
    """Where the pixels of a JPEG begin."""
    return content.index(b"\xff\xda")


def _noise(count: int) -> bytes:
    return bytes(np.random.default_rng(0).integers(0, 256, count, np.uint8))
