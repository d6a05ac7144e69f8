"""The routes of the dashboard: a fixed table of files, the controls, pictures, the WebSocket."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.dashboard.access import SESSION_S, Access
from patchline.runtime.dashboard.connections import Connections
from patchline.runtime.dashboard.documents import camera_document
from patchline.runtime.dashboard.feed import LINE_FAILED, Feed
from patchline.runtime.dashboard.guard import Guard, Refusal, read_json, refusal_response
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.line.controls import Controls

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

logger = logging.getLogger(__name__)

_FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/events.js": ("events.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/login": ("login.html", "text/html"),
    "/login.js": ("login.js", "text/javascript"),
}
"""Everything that is served from the disk; nothing of a request ever becomes part of a path."""

_EVENT = re.compile(r"[0-9a-f]{32}")


class Site:
    """What is behind the guard. For the event loop's thread."""

    def __init__(self, live: LiveView, controls: Controls, access: Access, clock: Clock) -> None:
        self._live, self._controls, self._access = live, controls, access
        self._feed = Feed(live, controls, clock=clock)
        self._content = {
            path: (files(__package__).joinpath(name).read_bytes(), kind)
            for path, (name, kind) in _FILES.items()
        }
        self.guard: Guard

    async def file(self, request: Request) -> Response:
        """One of the page's own files."""
        from starlette.responses import Response

        content, kind = self._content[request.url.path]
        return Response(content, media_type=kind)

    async def state(self, request: Request) -> Response:
        """All cameras as JSON, for programs."""
        from starlette.responses import JSONResponse

        cameras = [camera_document(view) for view in await self._feed.cameras()]
        return JSONResponse({"cameras": cameras, "needs_token": not self._access.is_open})

    async def event_picture(self, request: Request) -> Response:
        """The picture of an event."""
        from starlette.responses import Response

        identity = request.path_params["identity"]
        jpeg = self._live.event_picture(identity) if _EVENT.fullmatch(identity) else None
        if jpeg is None:
            raise Refusal(404, "there is no picture of this event any more")
        return Response(jpeg, media_type="image/jpeg")

    async def login(self, request: Request) -> Response:
        """The token for a session."""
        from starlette.responses import JSONResponse

        token = (await read_json(request)).get("token")
        if not isinstance(token, str):
            raise Refusal(400, 'expected {"token": "..."}')
        if not self._access.is_open:
            self.guard.check_token(request, token)
        response = JSONResponse({})
        response.set_cookie(
            self.guard.cookie,
            self._access.open_session(),
            max_age=SESSION_S,
            secure=request.headers.get("x-forwarded-proto", "").lower() == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """The end of a session."""
        from starlette.responses import JSONResponse

        self._access.end_session(request.cookies.get(self.guard.cookie, ""))
        response = JSONResponse({})
        response.delete_cookie(self.guard.cookie, httponly=True, samesite="strict")
        return response

    async def set_threshold(self, request: Request) -> Response:
        """Another threshold for a camera; ``null`` for its own."""
        document = await read_json(request)
        threshold = document.get("threshold", ...)
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if threshold is not None and not (is_number and _is_finite(threshold)):
            raise Refusal(400, "expected a threshold that is a finite number, or null")
        value = None if threshold is None else float(threshold)
        return await self._set(document, lambda name: self._controls.set_threshold(name, value))

    async def set_trigger(self, request: Request) -> Response:
        """Another trigger for a camera; ``null`` for its own."""
        document = await read_json(request)
        text = document.get("trigger", ...)
        if text is not None and not isinstance(text, str):
            raise Refusal(400, "expected a trigger such as 3/5, or null")
        try:
            trigger = None if text is None else Trigger.parse(text)
        except ConfigurationError as error:
            raise Refusal(400, str(error)) from error
        return await self._set(document, lambda name: self._controls.set_trigger(name, trigger))

    async def _set(self, document: dict[str, Any], change: Callable[[str], None]) -> Response:
        from starlette.responses import JSONResponse

        camera = document.get("camera")
        if not isinstance(camera, str):
            raise Refusal(400, "expected the name of a camera")
        try:
            await asyncio.to_thread(change, camera)
        except ConfigurationError as error:
            raise Refusal(400, str(error)) from error
        except WriteError as error:
            return JSONResponse({"warning": str(error)})
        return JSONResponse({})

    async def live(self, websocket: WebSocket) -> None:
        """The WebSocket of a page."""
        try:
            await self._feed.serve(websocket, lambda: self.guard.still_admits(websocket))
        except asyncio.TimeoutError:
            self.guard.drop(websocket)
        except Exception:
            logger.exception("a viewer of the dashboard cannot be served")
            await websocket.close(LINE_FAILED, "the line does not answer")


def build_app(
    live: LiveView,
    controls: Controls,
    access: Access,
    connections: Connections,
    *,
    cookie: str,
    clock: Clock = SYSTEM_CLOCK,
) -> Guard:
    """The whole application behind its guard. Needs the extra."""
    from starlette.applications import Starlette
    from starlette.routing import Route, WebSocketRoute

    site = Site(live, controls, access, clock)
    routes = [
        *(Route(path, site.file) for path in _FILES),
        Route("/api/state", site.state),
        Route("/api/events/{identity}.jpg", site.event_picture),
        Route("/api/login", site.login, methods=["POST"]),
        Route("/api/logout", site.logout, methods=["POST"]),
        Route("/api/threshold", site.set_threshold, methods=["POST"]),
        Route("/api/trigger", site.set_trigger, methods=["POST"]),
        WebSocketRoute("/live", site.live),
    ]

    async def refuse(request: Request, error: Exception) -> Any:
        assert isinstance(error, Refusal)
        return refusal_response(error)

    async def fail(request: Request, error: Exception) -> Any:
        logger.error("the dashboard cannot answer %s", request.url.path, exc_info=error)
        return refusal_response(Refusal(500, "the line could not do this; its log says why"))

    app = Starlette(routes=routes, exception_handlers={Refusal: refuse, Exception: fail})
    site.guard = Guard(app, access, connections, cookie=cookie)
    return site.guard


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False
