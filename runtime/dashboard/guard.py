"""What every request meets first: host, origin, token, time and headers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

from patchline.runtime.dashboard.access import Access, TooManyAttemptsError
from patchline.runtime.dashboard.address import host_of, is_loopback, is_same_origin
from patchline.runtime.dashboard.connections import Connections

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

LARGEST_BODY_BYTES = 16 * 1024
REQUEST_S = 20.0
"""A request is sent, answered and read within so many seconds, or its socket is dropped."""

PUBLIC = frozenset({"/login", "/login.js", "/style.css", "/api/login"})
"""What is served before the token was given."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Stands before an ASGI application; it alone decides who is let through.

    Args:
        app: what is served behind it.
        access: knows the token.
        connections: drops sockets that take too long.
        cookie: name of the session's cookie.
    """

    def __init__(
        self, app: ASGIApp, access: Access, connections: Connections, *, cookie: str
    ) -> None:
        self._app, self._access, self._connections = app, access, connections
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        peer = tuple(scope["client"])
        with self._connections.busy(peer):
            serve = self._websocket if scope["type"] == "websocket" else self._http
            await serve(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_RAW_HEADERS]
            await send(message)

        try:
            await asyncio.wait_for(self._answer(scope, receive, send_with_headers), REQUEST_S)
        except asyncio.TimeoutError:
            self._connections.abort(tuple(scope["client"]))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request
        from starlette.responses import RedirectResponse

        request = Request(scope)
        try:
            self._check(request)
        except Refusal as refusal:
            if refusal.status == 401 and scope["path"] == "/":
                await RedirectResponse("login", 303)(scope, receive, send)
            else:
                await refusal_response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        self._check_host(request)
        has_bearer = False
        if request.url.path not in PUBLIC:
            has_bearer = self.admit(request)
        if request.method not in ("GET", "HEAD"):
            self._check_origin(request, has_bearer)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refusal(415, "expected the content type application/json")
            check_length(request)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        try:
            self._check_host(connection)
            self._check_origin(connection, self.admit(connection))
        except Refusal as refusal:
            logger.info("a WebSocket was refused: %s", refusal)
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _check_host(self, connection: HTTPConnection) -> None:
        # Without a token any page could point its own name at us (DNS rebinding). With one it
        # gets no further than the login, for its name has no cookie.
        if self._access.is_open and not is_loopback(host_of(connection.headers.get("host", ""))):
            raise Refusal(
                403,
                "this dashboard has no token, so it answers only under localhost or 127.0.0.1: "
                "start it with --token to reach it under another name",
            )

    def _check_origin(self, connection: HTTPConnection, has_bearer: bool) -> None:
        origin = connection.headers.get("origin")
        if origin is None and has_bearer:
            return
        if origin is None or not is_same_origin(origin, connection.headers.get("host", "")):
            raise Refusal(
                403,
                "the request comes from another page: its Origin is not this dashboard's Host. "
                "A reverse proxy has to pass Host on",
            )

    def admit(self, connection: HTTPConnection) -> bool:
        """Let holders of the token pass; whether it came with the request itself.

        Raises:
            Refusal: 401 without token or session, 429 after too many wrong ones.
        """
        if self._access.is_open:
            return False
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self.check_token(connection, token.strip())
            return True
        if not self._access.knows_session(connection.cookies.get(self.cookie, "")):
            raise Refusal(401, "log in with the dashboard's token first")
        return False

    def still_admits(self, connection: HTTPConnection) -> bool:
        """Whether one that was let through may stay: until its session ends."""
        if self._access.is_open or "authorization" in connection.headers:
            return True
        return self._access.knows_session(connection.cookies.get(self.cookie, ""))

    def drop(self, connection: HTTPConnection) -> None:
        """Drop the socket of a viewer that does not read."""
        self._connections.abort(tuple(connection.scope["client"]))

    def check_token(self, connection: HTTPConnection, token: str) -> None:
        """Raises Refusal: 401 if it is not the token, 429 after too many wrong ones."""
        address = connection.client.host if connection.client else ""
        try:
            if self._access.accepts(token, address):
                return
        except TooManyAttemptsError as error:
            wait_s = max(1, round(error.args[0]))
            raise Refusal(
                429,
                f"too many wrong tokens: try again in {wait_s} seconds",
                retry_after=str(wait_s),
            ) from None
        logger.warning("the dashboard was given a wrong token from %s", address)
        raise Refusal(401, "this is not the dashboard's token", www_authenticate="Bearer")


def refusal_response(refusal: Refusal) -> ASGIApp:
    """The answer that says why."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


def check_length(request: Request) -> None:
    """Refuse a body that says itself that it is too large."""
    length = request.headers.get("content-length", "0")
    # h11 has seen to it that it is a number.
    if int(length) > LARGEST_BODY_BYTES:
        raise _too_large()


async def read_json(request: Request) -> dict[str, Any]:
    """The object in the body of a request, however it is sent.

    Raises:
        Refusal: larger than :data:`LARGEST_BODY_BYTES`, or no JSON object.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise _too_large()
    document = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(bytes(body))
    if not isinstance(document, dict):
        raise Refusal(400, "expected a JSON object")
    return document


def _too_large() -> Refusal:
    sentence = f"the body is too large: expected at most {LARGEST_BODY_BYTES} bytes"
    return Refusal(413, sentence, connection="close")
