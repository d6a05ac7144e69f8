"""A real HTTP server on 127.0.0.1 that answers as it is told, or not at all."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.programs import run_program


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Reply:
    """Answers with a status and headers (``Retry_After`` becomes ``Retry-After``)."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody has signed but itself, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext"
    command = ["openssl", *request.split(), "subjectAltName=IP:127.0.0.1"]
    try:
        run_program(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return certificate, key


class WebServer:
    """``replies`` are used one after the other, then 204 for ever."""

    def __init__(self, *replies: Reply, certificate: tuple[Path, Path] | None = None) -> None:
        self.requests: list[Request] = []
        self.replies = list(replies)
        self.going_on = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.requests.append(Request(self.path, dict(self.headers), body))
                reply = owner.replies.pop(0) if owner.replies else status(204)
                self.close_connection = True
                reply(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *arguments: Any) -> None:
                pass  # a client that has had enough

        self._server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.origin = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Says nothing until the test is over."""
        self.going_on.wait(20)

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """A byte now and then, so that no read takes long."""
        while not self.going_on.wait(0.02):
            handler.wfile.write(b"H")

    def close(self) -> None:
        self.going_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)
