"""A real server on 127.0.0.1 with a fake line behind it."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from patchline.runtime.dashboard.live import LiveView

from .fake_line import FakeControls, Part, make_part

pytest.importorskip("uvicorn", reason='the extra is not here: pip install "patchline[dashboard]"')

TOKEN = "a-token-that-nobody-guesses"
SHORT_S = 15.0
"""Waited at most for what takes milliseconds."""


def until(condition: Callable[[], Any], seconds: float = SHORT_S) -> Any:
    """The first true value of ``condition``; fails where it stays false."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.02)
    return value


class Site:
    """A running dashboard, as a client sees it."""

    def __init__(self, token: str | None = None, names: tuple[str, ...] = ("top",)) -> None:
        from patchline.runtime.dashboard.server import Dashboard

        self.live, self.controls = LiveView(), FakeControls(*names)
        self.dashboard = Dashboard(self.live, self.controls, port=0, token=token)
        self.dashboard.start()
        self.thread = self.dashboard._thread
        self.url = self.dashboard.url.rstrip("/")
        self.host = self.url.removeprefix("http://")
        self.port = int(self.host.rpartition(":")[2])

    def close(self) -> None:
        self.dashboard.stop()
        self.live.close()

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; ``body`` goes as JSON unless it is bytes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            given = {"content-type": "application/json", "origin": self.url, **given}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SHORT_S)
        try:
            connection.request(method, path, body, {k: v for k, v in given.items() if v})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, named, answer.read()
        finally:
            connection.close()

    def session(self) -> str:
        status, headers, _ = self.ask("POST", "/api/login", {"token": TOKEN})
        assert status == 200
        return headers["set-cookie"].partition(";")[0]


def run(coroutine: Any) -> Any:
    """Run a test's coroutine within a bound."""

    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, 4 * SHORT_S)

    return asyncio.run(bounded())


@pytest.fixture(scope="session")
def good_part() -> Part:
    return make_part(0, None)


@pytest.fixture(scope="session")
def bad_part() -> Part:
    return make_part(21, "contamination")


@pytest.fixture
def site() -> Iterator[Site]:
    """Without a token."""
    made = Site()
    yield made
    made.close()


@pytest.fixture
def locked() -> Iterator[Site]:
    """With a token."""
    made = Site(TOKEN)
    yield made
    made.close()
