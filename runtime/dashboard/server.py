"""The dashboard's server: uvicorn in a thread of its own, beside the line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.dashboard.access import Access, suggested_token
from patchline.runtime.dashboard.address import DEFAULT_PORT, LOOPBACK, is_loopback
from patchline.runtime.dashboard.connections import Connections, bounded_protocols
from patchline.runtime.dashboard.extra import require_extra
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.controls import Controls

if TYPE_CHECKING:
    from uvicorn import Server

logger = logging.getLogger(__name__)

_START_S, _STOP_S, _GRACE_S = 10.0, 5.0, 1


class Dashboard:
    """Serves the page from :meth:`start` to :meth:`stop`.

    Args:
        live: the output that the line writes to.
        controls: the line.
        host: address to listen on; others than loopback need a token.
        port: 0 for any free one.
        token: what viewers have to know; ``None`` where only this machine can look.
        clock: the one that ``live`` was given.

    Raises:
        MissingExtraError: the extra ``[dashboard]`` is not installed.
        ConfigurationError: no token beyond loopback, or one that can be guessed.
    """

    def __init__(
        self,
        live: LiveView,
        controls: Controls,
        *,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        token: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        require_extra()
        if token is None and not is_loopback(host):
            raise ConfigurationError(
                f"the dashboard on {host} would be open to everybody on the network: give it a "
                f"token, such as --token {suggested_token()}"
            )
        self._live, self._controls, self._clock = live, controls, clock
        self._host, self._port = host, port
        self._access = Access(token, clock=clock)
        self._connections = Connections(clock=clock)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is, once it was started; of every address this machine's name."""
        host = socket.gethostname() if self._host in ("0.0.0.0", "::") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def start(self) -> None:
        """Listen, and serve in a thread.

        Raises:
            ConfigurationError: the address cannot be listened on: taken, or not of this machine.
        """
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._server = self._make_server()
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener), name="dashboard", daemon=True
        )
        self._thread.start()
        waited, is_up = 0.0, threading.Event()
        while not self._server.started and self._thread.is_alive() and waited < _START_S:
            is_up.wait(0.01)
            waited += 0.01
        if not self._server.started:
            self.stop()
            raise ConfigurationError(f"the dashboard does not start on {self.url}: see the log")

    def stop(self) -> None:
        """Send everybody away, within seconds. A second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None or self._server is None:
            return
        self._server.should_exit = True
        thread.join(_STOP_S)
        if thread.is_alive():
            logger.warning("the dashboard's thread does not end; it is left behind")

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere it would let two servers share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen()
        except (OSError, UnicodeError) as error:
            listener.close()
            raise ConfigurationError(_sentence(self._host, self._port, error)) from error
        return listener

    def _make_server(self) -> Server:
        import uvicorn

        from patchline.runtime.dashboard.app import build_app

        app = build_app(
            self._live,
            self._controls,
            self._access,
            self._connections,
            # Cookies know no ports: two lines on one machine must not log each other out.
            cookie=f"patchline_{self._port}",
            clock=self._clock,
        )
        http, websocket = bounded_protocols(self._connections)
        return uvicorn.Server(
            uvicorn.Config(
                app,
                http=http,
                ws=websocket,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",  # what fails here is logged by the guard
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws_max_size=1024,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    def _run(self, server: Server, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(server, listener))
        except Exception:
            logger.exception("the dashboard has failed; the line goes on without it")
        finally:
            listener.close()

    async def _serve(self, server: Server, listener: socket.socket) -> None:
        sweeping = asyncio.create_task(self._connections.keep_sweeping())
        try:
            await server.serve(sockets=[listener])
        finally:
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping
            self._connections.abort_all()
            await asyncio.sleep(0)


def _sentence(host: str, port: int, error: OSError | UnicodeError) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use, perhaps by another run-camera: choose another one "
            "with --port"
        )
    if code == errno.EACCES:
        return f"this user may not listen on port {port}: choose one from 1024 on"
    return f"the dashboard cannot listen on {host}, port {port}: {error}"
