"""The WebSocket of a page: a few updates a second, and each picture that is new to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.dashboard.documents import (
    camera_document,
    event_document,
    picture_message,
    point_document,
    verdict_document,
)
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.dashboard.pictures import PictureKind
from patchline.runtime.line.controls import CameraView, Controls

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

logger = logging.getLogger(__name__)

LARGEST_VIEWERS = 32
UPDATE_S, LOOK_S = 0.25, 0.04
SEND_S = 10.0
"""A viewer that takes nothing for so long is dropped; until then it misses pictures."""

TOO_MANY, LOGGED_OUT, LINE_FAILED, BAD_MESSAGE = 1013, 4401, 1011, 1008
"""Close codes: try again later, log in again, look into the log, not our protocol."""


class Feed:
    """Serves all viewers. For the event loop's thread.

    Args:
        live: where frames and events are.
        controls: where cameras are.
        clock: the one that ``live`` was given.
    """

    def __init__(self, live: LiveView, controls: Controls, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._live, self._controls, self._clock = live, controls, clock
        self._viewers = 0
        self._lock = asyncio.Lock()
        self._cameras: list[CameraView] = []
        self._cameras_at_s = -1.0

    async def serve(self, websocket: WebSocket, is_admitted: Callable[[], bool]) -> None:
        """Serve one viewer until it goes.

        Raises:
            TimeoutError: it takes nothing; its socket is to be dropped.
        """
        await websocket.accept()
        if self._viewers >= LARGEST_VIEWERS:
            await websocket.close(TOO_MANY, f"{LARGEST_VIEWERS} browsers are looking already")
            return
        self._viewers += 1
        viewer = _Viewer(self._live)
        listening = asyncio.create_task(viewer.listen(websocket))
        try:
            await self._send(viewer, websocket, is_admitted, listening)
        finally:
            self._viewers -= 1
            self._live.leave(viewer)
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await listening

    async def cameras(self) -> list[CameraView]:
        """All cameras, asked for once however many viewers want to know."""
        async with self._lock:
            if self._clock.monotonic() - self._cameras_at_s >= 0.8 * UPDATE_S:
                # The line may hold a lock for a moment; the other viewers do not wait with it.
                self._cameras = await asyncio.to_thread(self._controls.cameras)
                self._cameras_at_s = self._clock.monotonic()
            return self._cameras

    async def _send(
        self,
        viewer: _Viewer,
        websocket: WebSocket,
        is_admitted: Callable[[], bool],
        listening: asyncio.Task[None],
    ) -> None:
        from starlette.websockets import WebSocketDisconnect

        update_at_s = 0.0
        with contextlib.suppress(WebSocketDisconnect):
            while not listening.done():
                if asyncio.get_running_loop().time() >= update_at_s:
                    update_at_s = asyncio.get_running_loop().time() + UPDATE_S
                    if not is_admitted():
                        await _within(websocket.close(LOGGED_OUT, "logged out"))
                        return
                    views = await self.cameras()
                    text = json.dumps(viewer.update(views, self._clock.monotonic()))
                    await _within(websocket.send_text(text))
                for message in viewer.pictures(self._cameras):
                    await _within(websocket.send_bytes(message))
                await asyncio.wait((listening,), timeout=LOOK_S)
            if not viewer.is_gone:
                await _within(websocket.close(BAD_MESSAGE, "not a message of this page"))


class _Viewer:
    """What one page was told already."""

    def __init__(self, live: LiveView) -> None:
        self._live = live
        self._kind: PictureKind | None = None
        self._points: dict[str, int] = {}
        self._change = 0
        self._shown: dict[tuple[str, PictureKind], int] = {}
        self.is_gone = False

    async def listen(self, websocket: WebSocket) -> None:
        """Take what the page wants to see, until it goes or says something else."""
        from starlette.websockets import WebSocketDisconnect

        try:
            while True:
                kind = json.loads(await websocket.receive_text())["look"]
                self._kind = None if kind is None else PictureKind(kind)
                self._live.look(self, self._kind)
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        except (WebSocketDisconnect, RuntimeError):
            self.is_gone = True

    def update(self, views: list[CameraView], now_s: float) -> dict[str, Any]:
        """What is new, and the cameras as they are."""
        events, self._change = self._live.events_since(self._change)
        return {
            "now": round(now_s, 3),
            "cameras": [self._camera(view) for view in views],
            "events": [event_document(logged) for logged in events],
        }

    def _camera(self, view: CameraView) -> dict[str, Any]:
        points, count = self._live.scores_since(view.name, self._points.get(view.name, 0))
        self._points[view.name] = count
        return {
            **camera_document(view),
            "verdict": verdict_document(self._live.verdict(view.name)),
            "points": [point_document(point) for point in points],
        }

    def pictures(self, views: list[CameraView]) -> list[bytes]:
        """The pictures that are newer than those it has; what it missed is not caught up."""
        if self._kind is None:
            return []
        messages = []
        for view in views:
            picture = self._live.picture(view.name, self._kind)
            if picture is not None and picture.number > self._shown.get((view.name, self._kind), 0):
                self._shown[view.name, self._kind] = picture.number
                messages.append(picture_message(view.name, self._kind, picture))
        return messages


async def _within(sending: Any) -> None:
    await asyncio.wait_for(sending, SEND_S)
