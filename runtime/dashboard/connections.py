"""A bound on sockets: idle ones make room for new ones, and none stays that does not read or ask.

uvicorn times a connection only between two requests, and answers 503 once it has too many, so
that a few hundred silent sockets would shut everybody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from patchline.runtime.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

LARGEST_COUNT = 128
IDLE_S = 10.0
"""A request's head must be there after so long, the first one and each later one."""

_SWEEP_S = 1.0

Peer = tuple[str, int]
"""Host and port of the other end."""


class Connections:
    """All sockets of a server, oldest first. For the event loop's thread.

    Args:
        clock: tells since when a socket is idle.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._transports: dict[Peer, asyncio.Transport] = {}
        self._idle_since: dict[Peer, float] = {}

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, peer: Peer, transport: asyncio.Transport) -> None:
        """Take a new socket; past the limit the one that is idle longest is dropped."""
        self._transports[peer] = transport
        self._idle_since[peer] = self._clock.monotonic()
        if len(self._transports) > LARGEST_COUNT:
            # There always is one: the newest is idle itself.
            self.abort(min(self._idle_since, key=self._idle_since.__getitem__))

    @contextmanager
    def busy(self, peer: Peer) -> Iterator[None]:
        """While it is served a socket is not idle."""
        self._idle_since.pop(peer, None)
        try:
            yield
        finally:
            if peer in self._transports:
                self._idle_since[peer] = self._clock.monotonic()

    def abort(self, peer: Peer) -> None:
        """Drop a socket at once, with whatever it has not read."""
        self._idle_since.pop(peer, None)
        transport = self._transports.pop(peer, None)
        if transport is not None:
            transport.abort()

    def abort_all(self) -> None:
        """Drop every socket."""
        for peer in list(self._transports):
            self.abort(peer)

    def sweep(self) -> None:
        """Forget sockets that are gone, and drop those that are idle for too long."""
        now_s = self._clock.monotonic()
        for peer, since_s in list(self._idle_since.items()):
            # One that is closing waits for its reader, which may never read.
            if now_s - since_s >= IDLE_S:
                self.abort(peer)

    async def keep_sweeping(self) -> None:
        """Sweep every second until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()

    def forget(self, peer: Peer) -> None:
        """A socket is gone."""
        self._transports.pop(peer, None)
        self._idle_since.pop(peer, None)


def bounded_protocols(
    connections: Connections,
) -> tuple[type[H11Protocol], type[asyncio.Protocol]]:
    """uvicorn's HTTP and WebSocket protocols, which tell of their sockets. Needs the extra."""
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    base: Any = AutoWebSocketsProtocol

    class BoundedProtocol(H11Protocol):
        """Registers each socket, and forgets it unless it becomes a WebSocket."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self.client is not None:
                connections.add(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.client is not None:
                connections.forget(self.client)

    class BoundedWebSocket(base):  # type: ignore[misc]
        """Forgets its socket."""

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.client is not None:
                connections.forget(self.client)

    return BoundedProtocol, BoundedWebSocket
