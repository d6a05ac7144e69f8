"""WebSockets and idle sockets against the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from patchline.runtime.dashboard import connections, feed, live
from patchline.runtime.dashboard.pictures import live_jpeg

from .conftest import SHORT_S, TOKEN, Site, run, until
from .fake_line import Part, defect_event, judged


def dial(site: Site, **options: Any) -> connect:
    return connect(
        f"ws://{site.host}/live",
        **{"origin": site.url, "proxy": None, "compression": None, "max_size": None, **options},
    )


async def update(viewer: ClientConnection) -> dict[str, Any]:
    """The next update."""
    while True:
        message = await asyncio.wait_for(viewer.recv(), SHORT_S)
        if isinstance(message, str):
            return dict(json.loads(message))


async def picture(viewer: ClientConnection) -> tuple[dict[str, Any], bytes]:
    """The header and the JPEG of the next picture."""
    while True:
        message = await asyncio.wait_for(viewer.recv(), SHORT_S)
        if isinstance(message, bytes):
            end = 4 + int.from_bytes(message[:4], "big")
            return json.loads(message[4:end]), message[end:]


async def close_code(viewer: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(viewer.recv(), SHORT_S)
    return viewer.close_code


@contextlib.asynccontextmanager
async def feeding(site: Site, part: Part) -> AsyncIterator[None]:
    """Frames every 20 ms."""

    async def write() -> None:
        for index in range(100_000):
            site.live.write(judged(part, "top", index))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class TestWhoMayLook:
    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", None])
    def test_another_page_may_not(self, site: Site, origin: str | None) -> None:
        async def go() -> None:
            with pytest.raises(InvalidStatus, match="403"):
                await dial(site, origin=origin)

        run(go())

    def test_a_rebound_name_may_not(self, site: Site) -> None:
        async def go() -> None:
            uri = f"ws://evil.example:{site.port}/live"
            options = {"host": "127.0.0.1", "port": site.port, "proxy": None}
            with pytest.raises(InvalidStatus, match="403"):
                await connect(uri, origin=f"http://evil.example:{site.port}", **options)  # type: ignore[arg-type]

        run(go())

    def test_not_without_the_token(self, locked: Site) -> None:
        async def go() -> None:
            with pytest.raises(InvalidStatus, match="403"):
                await dial(locked)
            with pytest.raises(InvalidStatus, match="403"):
                await dial(locked, additional_headers={"cookie": f"patchline={TOKEN}"})

        run(go())

    def test_with_a_session_until_it_ends(self, locked: Site) -> None:
        async def go() -> None:
            session = locked.session()
            async with dial(locked, additional_headers={"cookie": session}) as viewer:
                assert (await update(viewer))["cameras"][0]["name"] == "top"
                locked.ask("POST", "/api/logout", {}, cookie=session)
                assert await close_code(viewer) == feed.LOGGED_OUT

        run(go())

    def test_a_program_with_a_bearer_needs_no_origin(self, locked: Site) -> None:
        async def go() -> None:
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with dial(locked, origin=None, additional_headers=headers) as viewer:
                assert await update(viewer)

        run(go())


class TestWhatIsTold:
    def test_cameras_scores_and_events(self, site: Site, bad_part: Part) -> None:
        async def go() -> None:
            frame = judged(bad_part, "top", 7)
            site.live.write(frame)
            site.live.notify(defect_event(frame))
            async with dial(site) as viewer:
                points, events = [], []
                for _ in range(3):
                    told = await update(viewer)
                    points += told["cameras"][0]["points"]
                    events += told["events"]
                camera = told["cameras"][0]
                assert camera["threshold"] == 27.5
                assert camera["trigger"] == "3/5"
                assert camera["state"] == "running"
                assert camera["verdict"]["frame"] == 7
                assert [(score, limit, bad) for _, score, limit, bad in points] == [
                    (frame.verdict.score, 27.5, 1)
                ]
                assert {event["id"] for event in events} == {defect["id"] for defect in events}
                assert events[0]["kind"] == "defect"
                assert "***" in camera["source"]

        run(go())

    def test_three_viewers_see_pictures_that_were_drawn_once(
        self, site: Site, good_part: Part, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = []

        def counted(frame: Any, kind: Any) -> bytes:
            drawn.append((frame.verdict.frame, kind))
            return live_jpeg(frame, kind)

        monkeypatch.setattr(live, "live_jpeg", counted)

        async def go() -> None:
            async with dial(site) as one, dial(site) as two, dial(site) as three:
                for viewer in (one, two, three):
                    await viewer.send('{"look": "heat"}')
                async with feeding(site, good_part):
                    seen = [[(await picture(v))[1] for _ in range(4)] for v in (one, two, three)]
                assert all(jpeg[:2] == b"\xff\xd8" for jpegs in seen for jpeg in jpegs)
            assert len(drawn) == len(set(drawn)) == site.live.pictures_drawn

        run(go())

    def test_who_only_listens_costs_no_picture(self, site: Site, good_part: Part) -> None:
        async def go() -> None:
            async with dial(site) as viewer, feeding(site, good_part):
                for _ in range(3):
                    await update(viewer)
                assert site.live.pictures_drawn == 0
                await viewer.send('{"look": "influence"}')
                header, _ = await picture(viewer)
                assert (header["camera"], header["kind"]) == ("top", "influence")
                await viewer.send('{"look": null}')
                await update(viewer)
                await update(viewer)
                count = site.live.pictures_drawn
                await update(viewer)
                await update(viewer)
                assert site.live.pictures_drawn <= count + 1
            until(lambda: not site.live._looks)

        run(go())

    def test_the_line_is_asked_once_for_all_viewers(self, site: Site) -> None:
        async def go() -> None:
            async with contextlib.AsyncExitStack() as stack:
                viewers = [await stack.enter_async_context(dial(site)) for _ in range(10)]
                began, before = time.monotonic(), site.controls.looks
                for _ in range(4):
                    for viewer in viewers:
                        await update(viewer)
                looks, elapsed = site.controls.looks - before, time.monotonic() - began
                assert looks <= elapsed / (0.8 * feed.UPDATE_S) + 2

        run(go())

    @pytest.mark.parametrize(
        "message",
        ["", "{", "[]", "5", '{"look": "everything"}', "{}", '{"look": {}}', "[" * 1000, b"\xff"],
    )
    def test_nonsense_ends_the_connection(self, site: Site, message: str | bytes) -> None:
        async def go() -> None:
            async with dial(site) as viewer:
                await viewer.send(message)
                assert await close_code(viewer) in (feed.BAD_MESSAGE, 1007)
            async with dial(site) as viewer:
                assert await update(viewer)

        run(go())

    def test_a_large_message_ends_the_connection(self, site: Site) -> None:
        async def go() -> None:
            async with dial(site) as viewer:
                await viewer.send("x" * 100_000)
                assert await close_code(viewer) == 1009

        run(go())

    def test_a_line_that_fails_is_said(
        self, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> Any:
            raise RuntimeError("inner details")

        async def go() -> None:
            async with dial(site) as viewer:
                monkeypatch.setattr(site.controls, "cameras", fail)
                assert await close_code(viewer) == feed.LINE_FAILED
                assert viewer.close_reason == "the line does not answer"

        run(go())
        assert "inner details" in caplog.text

    def test_the_end_of_the_line_is_told(self, site: Site) -> None:
        async def go() -> None:
            async with dial(site) as viewer:
                await update(viewer)
                await asyncio.to_thread(site.dashboard.stop)
                assert await close_code(viewer) == 1012

        run(go())


class TestBounds:
    def test_one_viewer_too_many(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feed, "LARGEST_VIEWERS", 2)

        async def go() -> None:
            async with dial(site) as one, dial(site) as two:
                await update(one)
                await update(two)
                async with dial(site) as three:
                    assert await close_code(three) == feed.TOO_MANY
                    assert three.close_reason == "2 browsers are looking already"
                assert await update(one)
            until(lambda: not site.live._looks)
            async with dial(site) as four:
                assert await update(four)

        run(go())

    def test_who_does_not_read_misses_pictures_and_is_dropped(
        self, site: Site, bad_part: Part, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed, "SEND_S", 0.5)
        monkeypatch.setattr(live, "PICTURE_INTERVAL_S", 0.01)
        # Larger than what the system buffers for a socket.
        monkeypatch.setattr(live, "live_jpeg", lambda *_: b"\xff\xd8" + bytes(4_000_000))
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        head = (
            f"GET /live HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.url}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        )
        look = b'{"look": "heat"}'

        async def go() -> None:
            with socket.create_connection(("127.0.0.1", site.port)) as silent:
                silent.sendall(head.encode() + key + b"\r\n")
                assert b" 101 " in silent.recv(200)
                silent.sendall(bytes([0x81, 0x80 | len(look), 0, 0, 0, 0]) + look)
                async with feeding(site, bad_part), dial(site) as reader:
                    await reader.send('{"look": "heat"}')
                    await asyncio.to_thread(until, lambda: len(site.live._looks) == 2)
                    drain = asyncio.create_task(close_code(reader))
                    # The slow one goes, the other one stays.
                    await asyncio.to_thread(until, lambda: len(site.live._looks) == 1)
                    assert not drain.done()
                    drain.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await drain

        run(go())

    def test_two_hundred_idle_sockets_stop_nobody(self, site: Site) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                idle = stack.enter_context(socket.create_connection(("127.0.0.1", site.port)))
                idle.settimeout(SHORT_S)

            async def go() -> None:
                async with dial(site) as viewer:
                    assert await update(viewer)
                    assert site.ask("GET", "/")[0] == 200
                    assert await update(viewer)

            run(go())
            assert len(site.dashboard._connections) <= 128

    def test_two_hundred_half_requests_stop_nobody(self, site: Site) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                idle = stack.enter_context(socket.create_connection(("127.0.0.1", site.port)))
                idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
            assert site.ask("GET", "/")[0] == 200
            assert len(site.dashboard._connections) <= 128

    def test_a_viewer_is_never_the_one_that_makes_room(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "LARGEST_COUNT", 5)

        async def go() -> None:
            async with dial(site) as viewer:
                await update(viewer)
                with contextlib.ExitStack() as stack:
                    for _ in range(30):
                        address = ("127.0.0.1", site.port)
                        stack.enter_context(socket.create_connection(address))
                    for _ in range(3):
                        assert await update(viewer)

        run(go())

    @pytest.mark.parametrize(
        "sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    )
    def test_an_idle_socket_is_dropped(
        self, site: Site, sent: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "IDLE_S", 0.3)
        with socket.create_connection(("127.0.0.1", site.port), timeout=SHORT_S) as idle:
            idle.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while idle.recv(65536):
                    pass
        until(lambda: len(site.dashboard._connections) == 0)

    def test_a_trickle_keeps_no_socket(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "IDLE_S", 0.5)
        with socket.create_connection(("127.0.0.1", site.port)) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            end = time.monotonic() + SHORT_S
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    slow.sendall(b"x")
                    time.sleep(0.05)
            assert time.monotonic() < end
