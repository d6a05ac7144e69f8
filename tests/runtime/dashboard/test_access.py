"""Addresses, tokens, sessions, and what is refused before a server is started."""

from __future__ import annotations

import socket
import sys
from datetime import datetime, timedelta

import pytest

from patchline.runtime.dashboard.access import (
    ATTEMPTS,
    ATTEMPTS_S,
    SESSION_S,
    Access,
    TooManyAttemptsError,
    suggested_token,
)
from patchline.runtime.dashboard.address import (
    host_of,
    is_loopback,
    is_same_origin,
    parse_address,
)
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.dashboard.server import Dashboard
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from tests.programs import run_program

from ..fakes import NOON, FakeClock
from .conftest import TOKEN
from .fake_line import FakeControls


class WallClock(FakeClock):
    moment = NOON

    def now(self) -> datetime:
        return self.moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8765", ("127.0.0.1", 8765)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("line3.local:8765", ("line3.local", 8765)),
        ("[::1]:8765", ("::1", 8765)),
        (" localhost:0 ", ("localhost", 0)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, "--metrics") == expected


@pytest.mark.parametrize("text", ["", ":", "a:b", "65536", "::1:80", "http://a:80", "a b:80", "-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--metrics .*: expected PORT or HOST:PORT"):
        parse_address(text, "--metrics")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST."])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.org", "127.0.0.1.evil.org", "1"]
)
def test_beyond_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("header", "host"),
    [("a:80", "a"), ("[::1]:80", "::1"), ("[::1", ""), ("", ""), ("evil@127.0.0.1", "127.0.0.1")],
)
def test_host_headers(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        ("http://a:80", "a:80", True),
        ("https://A", "a", True),
        ("http://a", "a:80", False),
        ("http://a:80", "a:81", False),
        ("http://evil", "a", False),
        ("null", "null", False),
        ("ftp://a", "a", False),
        ("http://a/", "a", False),
        ("", "", False),
    ],
)
def test_origins(origin: str, host: str, is_same: bool) -> None:
    assert is_same_origin(origin, host) is is_same


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "line3.local"])
def test_beyond_loopback_a_token_is_demanded_and_one_offered(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Dashboard(LiveView(), FakeControls(), host=host)
    offered = str(caught.value).rpartition("--token ")[2]
    assert len(offered) == 32
    Access(offered)


@pytest.mark.parametrize("token", ["", "short", "x" * 15])
def test_a_short_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="16 or more"):
        Dashboard(LiveView(), FakeControls(), token=token)


@pytest.mark.parametrize("token", ["sixteen letters and blanks", "x" * 16 + "\n", "ü" * 16])
def test_a_token_that_changes_on_the_way_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="blanks or other than ASCII"):
        Access(token)


def test_offered_tokens_differ() -> None:
    assert len({suggested_token() for _ in range(100)}) == 100


def test_a_taken_port_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is in use"):
            Dashboard(LiveView(), FakeControls(), port=port).start()


def test_an_address_of_another_machine_is_a_sentence() -> None:
    dashboard = Dashboard(LiveView(), FakeControls(), host="192.0.2.1", port=0, token=TOKEN)
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):
        dashboard.start()
    dashboard.stop()


def test_without_the_extra_the_pip_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r'pip install "patchline\[dashboard\]"'):
        Dashboard(LiveView(), FakeControls())


def test_nothing_of_the_extra_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import importlib, pkgutil, sys, patchline.runtime.dashboard as package\n"
        "for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([n for n in ('starlette', 'uvicorn', 'websockets', 'h11') if n in sys.modules])"
    )
    done = run_program([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestAccess:
    def test_the_token_and_no_other(self) -> None:
        access = Access(TOKEN)
        assert access.accepts(TOKEN, "a")
        for wrong in ("", TOKEN[:-1], TOKEN + "x"):
            assert not access.accepts(wrong, "a")

    def test_guessing_makes_wait_even_with_the_right_one(self) -> None:
        clock = FakeClock()
        access = Access(TOKEN, clock=clock)
        for _ in range(ATTEMPTS):
            assert not access.accepts("wrong", "a")
        with pytest.raises(TooManyAttemptsError):
            access.accepts(TOKEN, "a")
        assert access.accepts(TOKEN, "b")  # another address
        clock.time_s += ATTEMPTS_S
        assert access.accepts(TOKEN, "a")

    def test_many_addresses_take_no_more_memory(self) -> None:
        access = Access(TOKEN, clock=FakeClock())
        for number in range(3000):
            access.accepts("wrong", f"address {number}")
        assert len(access._attempts) == 1000

    def test_a_session_is_not_the_token_and_outlives_a_restart(self) -> None:
        session = Access(TOKEN).open_session()
        assert TOKEN not in session
        assert Access(TOKEN).knows_session(session)
        assert not Access(TOKEN + "2").knows_session(session)
        assert Access(TOKEN).open_session() != session

    @pytest.mark.parametrize("position", [0, 12, -1])
    def test_a_changed_session_is_refused(self, position: int) -> None:
        access = Access(TOKEN)
        letters = list(access.open_session())
        letters[position] = "1" if letters[position] != "1" else "2"
        assert not access.knows_session("".join(letters))

    @pytest.mark.parametrize("session", ["", ".", "..", "9999999999..", TOKEN, "é.é.é"])
    def test_what_is_no_session(self, session: str) -> None:
        assert not Access(TOKEN).knows_session(session)

    def test_a_session_ends(self) -> None:
        clock = WallClock()
        access = Access(TOKEN, clock=clock)
        session, other = access.open_session(), access.open_session()
        access.end_session(session)
        assert not access.knows_session(session)
        assert access.knows_session(other)
        clock.moment = NOON + timedelta(seconds=SESSION_S - 1)
        assert access.knows_session(other)
        clock.moment = NOON + timedelta(seconds=SESSION_S + 1)
        assert not access.knows_session(other)
