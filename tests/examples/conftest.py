"""The examples of docs/examples as modules, a web server with TLS, and releases to publish."""

from __future__ import annotations

import importlib
import ssl
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.outputs.web_server import make_certificate

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
MODULES = (
    "model_index", "model_releases", "first_frames", "model_source", "publish_models",
    "pull_models",
)  # fmt: skip


class Examples:
    """The modules by name."""

    def __init__(self) -> None:
        for name in MODULES:
            setattr(self, name, importlib.import_module(name))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.fixture(scope="session")
def examples() -> Iterator[Examples]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield Examples()
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1, its own authority; and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Web:
    """A web server over a folder; with ``demands_client`` for holders of the certificate alone."""

    def __init__(
        self, folder: Path, certificate: tuple[Path, Path], *, demands_client: bool
    ) -> None:
        self.folder, self.asked = folder, list[str]()
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                if self.path.startswith("/moved"):
                    self.send_response(302)
                    self.send_header("Location", self.path.removeprefix("/moved"))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    super().do_GET()

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *arguments: Any) -> None:
                pass  # a client that was refused

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if demands_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificate[0])
        self._server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


@pytest.fixture
def web(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[Web]:
    (tmp_path / "web").mkdir()
    server = Web(tmp_path / "web", certificate, demands_client=False)
    yield server
    server.close()
