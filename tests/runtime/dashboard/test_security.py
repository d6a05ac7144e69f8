"""Each rule of the dashboard against its real server."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from patchline.runtime.dashboard import guard
from patchline.runtime.dashboard.access import ATTEMPTS
from patchline.runtime.dashboard.guard import LARGEST_BODY_BYTES
from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import WriteError

from .conftest import SHORT_S, TOKEN, Site, until
from .fake_line import Part, defect_event, judged

PRIVATE = ["/", "/app.js", "/chart.js", "/events.js", "/api/state", f"/api/events/{'0' * 32}.jpg"]
PUBLIC = ["/login", "/login.js", "/style.css"]
POSTS = ["/api/threshold", "/api/trigger", "/api/logout"]
THRESHOLD = {"camera": "top", "threshold": 31.5}


def error_of(body: bytes) -> str:
    return str(json.loads(body)["error"])


def raw(site: Site, request: bytes) -> bytes:
    """What the server answers to these very bytes, until it closes or is silent."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=SHORT_S) as connection:
        connection.sendall(request)
        connection.settimeout(1.0)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


@pytest.fixture(scope="module")
def open_site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture(scope="module")
def locked_site() -> Iterator[Site]:
    made = Site(TOKEN)
    yield made
    made.close()


@pytest.fixture
def site(open_site: Site) -> Site:
    """One server for all of them; what they may change is put back."""
    open_site.controls.reset()
    return open_site


@pytest.fixture
def locked(locked_site: Site) -> Site:
    """The same, with a token, and nobody who has to wait."""
    locked_site.controls.reset()
    locked_site.dashboard._access._attempts.clear()
    return locked_site


class TestToken:
    @pytest.mark.parametrize("path", PRIVATE)
    def test_nothing_private_without_it(self, locked: Site, path: str) -> None:
        status, headers, body = locked.ask("GET", path)
        if path == "/":
            assert (status, headers["location"]) == (303, "login")
        else:
            assert status == 401
            assert "token" in error_of(body)

    @pytest.mark.parametrize("path", PUBLIC)
    def test_the_login_page_without_it(self, locked: Site, path: str) -> None:
        assert locked.ask("GET", path)[0] == 200

    @pytest.mark.parametrize("path", POSTS)
    def test_nothing_is_changed_without_it(self, locked: Site, path: str) -> None:
        assert locked.ask("POST", path, THRESHOLD)[0] == 401
        assert locked.controls.calls == []

    def test_a_session_opens_everything(self, locked: Site) -> None:
        session = locked.session()
        for path in PRIVATE[:-1]:
            assert locked.ask("GET", path, cookie=session)[0] == 200
        assert locked.ask("POST", "/api/threshold", THRESHOLD, cookie=session)[0] == 200
        assert locked.controls.calls == [("threshold", "top", 31.5)]

    def test_the_cookie(self, locked: Site) -> None:
        _, headers, _ = locked.ask("POST", "/api/login", {"token": TOKEN})
        cookie = headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie
        assert TOKEN not in cookie
        assert cookie.startswith(f"patchline_{locked.port}=")

    def test_behind_https_the_cookie_is_secure(self, locked: Site) -> None:
        answer = locked.ask("POST", "/api/login", {"token": TOKEN}, x_forwarded_proto="https")
        assert "secure" in answer[1]["set-cookie"].lower()

    def test_logging_out_ends_the_session(self, locked: Site) -> None:
        session = locked.session()
        status, headers, _ = locked.ask("POST", "/api/logout", {}, cookie=session)
        assert status == 200
        assert "max-age=0" in headers["set-cookie"].lower()
        assert locked.ask("GET", "/api/state", cookie=session)[0] == 401

    def test_a_bearer_is_enough_for_programs(self, locked: Site) -> None:
        bearer = f"Bearer {TOKEN}"
        status, _, body = locked.ask("GET", "/api/state", authorization=bearer)
        assert status == 200
        assert json.loads(body)["cameras"][0]["name"] == "top"
        sent = locked.ask("POST", "/api/threshold", THRESHOLD, authorization=bearer, origin="")
        assert sent[0] == 200

    def test_a_bearer_from_another_page_is_refused(self, locked: Site) -> None:
        bearer, origin = f"Bearer {TOKEN}", "http://evil.example"
        sent = locked.ask("POST", "/api/threshold", THRESHOLD, authorization=bearer, origin=origin)
        assert sent[0] == 403

    @pytest.mark.parametrize("way", ["login", "bearer"])
    def test_guessing_is_slowed_down(self, locked: Site, way: str) -> None:
        def ask(token: str) -> tuple[int, dict[str, str], bytes]:
            if way == "login":
                return locked.ask("POST", "/api/login", {"token": token})
            return locked.ask("GET", "/api/state", authorization=f"Bearer {token}")

        assert [ask(f"wrong {number}")[0] for number in range(ATTEMPTS)] == [401] * ATTEMPTS
        status, headers, body = ask(TOKEN)
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 60
        assert "try again in" in error_of(body)

    def test_an_old_session_goes_on_while_somebody_guesses(self, locked: Site) -> None:
        session = locked.session()
        for _ in range(ATTEMPTS + 1):
            locked.ask("POST", "/api/login", {"token": "wrong"})
        assert locked.ask("GET", "/api/state", cookie=session)[0] == 200

    def test_no_token_is_ever_said(self, locked: Site, caplog: pytest.LogCaptureFixture) -> None:
        wrong = "what-somebody-typed"
        _, _, body = locked.ask("POST", "/api/login", {"token": wrong})
        assert wrong not in body.decode()
        assert wrong not in caplog.text
        assert "wrong token from 127.0.0.1" in caplog.text

    @pytest.mark.parametrize("body", [{}, {"token": 5}, {"token": None}, []])
    def test_a_login_that_is_none(self, locked: Site, body: Any) -> None:
        assert locked.ask("POST", "/api/login", body)[0] == 400


class TestOriginAndHost:
    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", ""])
    def test_another_page_changes_nothing(self, site: Site, origin: str) -> None:
        status, _, body = site.ask("POST", "/api/threshold", THRESHOLD, origin=origin)
        assert status == 403
        assert "Origin" in error_of(body)
        assert site.controls.calls == []

    def test_another_page_does_not_log_in(self, locked: Site) -> None:
        sent = locked.ask("POST", "/api/login", {"token": TOKEN}, origin="http://evil.example")
        assert sent[0] == 403
        assert "set-cookie" not in sent[1]

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:1", "10.0.0.1", "["])
    def test_a_rebound_name_sees_nothing(self, site: Site, host: str) -> None:
        status, _, body = site.ask("GET", "/", host=host)
        assert status == 403
        assert "--token" in error_of(body)

    @pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "localhost"])
    def test_this_machines_own_names(self, site: Site, host: str) -> None:
        assert site.ask("GET", "/", host=host.format(site.port))[0] == 200

    def test_no_host_at_all(self, site: Site) -> None:
        assert b" 403 " in raw(site, b"GET / HTTP/1.0\r\n\r\n").splitlines()[0]

    def test_two_hosts(self, site: Site) -> None:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert b" 400 " in raw(site, request).splitlines()[0]

    def test_behind_a_proxy_any_name_with_the_token(self, locked: Site) -> None:
        host, origin = "line3.example", "https://line3.example"
        sent = locked.ask("POST", "/api/login", {"token": TOKEN}, host=host, origin=origin)
        assert sent[0] == 200


class TestRequests:
    @pytest.mark.parametrize("path", [*POSTS, "/api/login"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_nothing_is_changed_by_get(self, site: Site, path: str, method: str) -> None:
        assert site.ask(method, f"{path}?camera=top&threshold=1")[0] == 405
        assert site.controls.calls == []

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
    def test_no_other_methods(self, site: Site, method: str) -> None:
        headers = {"origin": site.url, "content_type": "application/json"}
        assert site.ask(method, "/api/threshold", THRESHOLD, **headers)[0] == 405
        assert site.controls.calls == []

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_a_form_of_another_page_is_no_json(self, site: Site, kind: str) -> None:
        assert site.ask("POST", "/api/threshold", THRESHOLD, content_type=kind)[0] == 415
        assert site.controls.calls == []

    def test_a_charset_is_allowed(self, site: Site) -> None:
        kind = "application/json; charset=utf-8"
        assert site.ask("POST", "/api/threshold", THRESHOLD, content_type=kind)[0] == 200

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"5", b'"x"', b"\xff\xfe", b"[" * 5000, b"9" * 5000]
    )
    def test_what_is_no_object(self, site: Site, body: bytes) -> None:
        status, _, answer = site.ask("POST", "/api/threshold", body)
        assert status == 400
        assert error_of(answer) == "expected a JSON object"

    def test_a_large_body(self, site: Site) -> None:
        status, _, answer = site.ask("POST", "/api/threshold", b" " * (LARGEST_BODY_BYTES + 1))
        assert status == 413
        assert "too large" in error_of(answer)

    def test_the_largest_body(self, site: Site) -> None:
        body = json.dumps(THRESHOLD).encode().ljust(LARGEST_BODY_BYTES)
        assert site.ask("POST", "/api/threshold", body)[0] == 200

    @pytest.mark.parametrize("path", ["/api/threshold", "/api/login"])
    def test_a_large_body_without_its_length(self, site: Site, path: str) -> None:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.url}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        answer = raw(site, head.encode() + 5 * chunk)
        assert b" 413 " in answer.splitlines()[0]
        assert b"connection: close" in answer.lower()

    def test_an_endless_body_ends_the_connection(self, site: Site) -> None:
        head = (
            f"POST /api/threshold HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.url}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        with socket.create_connection(("127.0.0.1", site.port), timeout=SHORT_S) as connection:
            connection.sendall(head.encode())
            with pytest.raises(OSError):
                for _ in range(20_000):
                    connection.sendall(chunk)

    def test_a_large_head(self, site: Site) -> None:
        answer = raw(site, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert answer == b"" or b" 400 " in answer.splitlines()[0]
        assert site.ask("GET", "/")[0] == 200

    def test_a_body_that_never_comes(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guard, "REQUEST_S", 0.2)
        head = (
            f"POST /api/threshold HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.url}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        with socket.create_connection(("127.0.0.1", site.port), timeout=SHORT_S) as connection:
            connection.sendall(head.encode())
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1000) == b""

    @pytest.mark.parametrize(
        "path",
        [
            "/../server.py",
            "/..%2fserver.py",
            "/%2e%2e/%2e%2e/errors.py",
            "//etc/passwd",
            "/server.py",
            "/index.html",
            "/static/../app.py",
            "/app.js/../server.py",
            "/..\\server.py",
            "/app.js%00.py",
            "/api/events/../../server.py.jpg",
            "/api/events/..%2f..%2fserver.jpg",
            "/api/events/.jpg",
            f"/api/events/{'0' * 31}%0a.jpg",
        ],
    )
    def test_paths_lead_nowhere(self, site: Site, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: {site.host}\r\nConnection: close\r\n\r\n"
        answer = raw(site, request.encode())
        assert b" 404 " in answer.splitlines()[0]
        assert b"import" not in answer

    @pytest.mark.parametrize("path", ["/", "/login", "/app.js", "/api/state", "/nothing"])
    def test_headers(self, site: Site, path: str) -> None:
        _, headers, _ = site.ask("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


class TestControls:
    def test_a_threshold_and_back(self, site: Site) -> None:
        assert site.ask("POST", "/api/threshold", THRESHOLD)[0] == 200
        site.ask("POST", "/api/threshold", {"camera": "top", "threshold": None})
        assert site.controls.calls == [("threshold", "top", 31.5), ("threshold", "top", None)]

    def test_a_trigger_and_back(self, site: Site) -> None:
        assert site.ask("POST", "/api/trigger", {"camera": "top", "trigger": "2/7"})[0] == 200
        site.ask("POST", "/api/trigger", {"camera": "top", "trigger": None})
        assert site.controls.calls == [("trigger", "top", Trigger(2, 7)), ("trigger", "top", None)]

    @pytest.mark.parametrize(
        "text",
        [
            '{"camera": "top"}',
            '{"camera": "top", "threshold": NaN}',
            '{"camera": "top", "threshold": Infinity}',
            '{"camera": "top", "threshold": 1e999}',
            '{"camera": "top", "threshold": "5"}',
            '{"camera": "top", "threshold": true}',
            '{"camera": "top", "threshold": [5]}',
            '{"camera": "top", "threshold": 1' + "0" * 400 + "}",
            '{"camera": 5, "threshold": 5}',
            '{"threshold": 5}',
        ],
    )
    def test_what_is_no_threshold(self, site: Site, text: str) -> None:
        status, _, body = site.ask("POST", "/api/threshold", text.encode())
        assert status == 400
        assert error_of(body).startswith("expected")
        assert site.controls.calls == []

    @pytest.mark.parametrize("trigger", ["", "3", "5/3", "0/5", "1/99999", "a/b"])
    def test_what_is_no_trigger_is_said(self, site: Site, trigger: str) -> None:
        sent = site.ask("POST", "/api/trigger", {"camera": "top", "trigger": trigger})
        assert sent[0] == 400
        assert "N/M" in error_of(sent[2])
        assert site.controls.calls == []

    @pytest.mark.parametrize("document", [{"camera": "top"}, {"camera": "top", "trigger": 5}])
    def test_no_trigger_at_all(self, site: Site, document: Any) -> None:
        assert site.ask("POST", "/api/trigger", document)[0] == 400

    def test_an_unknown_camera_is_said(self, site: Site) -> None:
        sent = site.ask("POST", "/api/threshold", {"camera": "bottom", "threshold": 1})
        assert (sent[0], error_of(sent[2])) == (400, "there is no camera 'bottom': top")

    def test_what_could_not_be_saved_is_a_warning(self, site: Site) -> None:
        site.controls.error = WriteError("state.json: the disk is full")
        status, _, body = site.ask("POST", "/api/threshold", THRESHOLD)
        assert (status, json.loads(body)) == (200, {"warning": "state.json: the disk is full"})

    def test_a_surprise_is_logged_and_not_shown(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.controls.error = RuntimeError("inner details")
        status, headers, body = site.ask("POST", "/api/threshold", THRESHOLD)
        assert status == 500
        assert "inner details" not in body.decode()
        assert headers["x-frame-options"] == "DENY"
        assert "inner details" in caplog.text

    def test_the_picture_of_an_event(self, site: Site, bad_part: Part) -> None:
        event = defect_event(judged(bad_part, "top", 0))
        site.live.notify(event)
        until(lambda: site.live.event_picture(event.id))
        status, headers, body = site.ask("GET", f"/api/events/{event.id}.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert body == site.live.event_picture(event.id)
        assert site.ask("GET", f"/api/events/{'f' * 32}.jpg")[0] == 404


class TestLife:
    def test_it_stops_while_connections_are_open(self) -> None:
        site = Site()
        sockets = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(5)]
        began = time.monotonic()
        site.dashboard.stop()
        site.dashboard.stop()
        assert time.monotonic() - began < SHORT_S
        for connection in sockets:
            connection.close()
        with pytest.raises(ConnectionError):
            site.ask("GET", "/")
        site.live.close()
        until(lambda: not (site.thread and site.thread.is_alive()))

    def test_its_address(self, site: Site) -> None:
        assert site.dashboard.url == f"http://127.0.0.1:{site.port}/"
