"""The webhook against real servers that refuse, stall, drip, redirect and come back."""

from __future__ import annotations

import base64
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchline.runtime.decisions.event import Phase
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.outputs.http_post import retry_after_s
from patchline.runtime.outputs.outbox import Outbox
from patchline.runtime.outputs.webhook import (
    LONGEST_PAUSE_S,
    LONGEST_RETRY_AFTER_S,
    WebhookOutput,
)

from ..fakes import NOON, FakeClock, gray
from .given import Told, event, frame, state, wait_until
from .web_server import WebServer, make_certificate, status

Make = Callable[..., WebhookOutput]


class HeldClock(FakeClock):
    """A pause lasts until the test lets it end."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        assert self.go_on.wait(20)
        return event.is_set()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Make]:
    outputs: list[WebhookOutput] = []

    def make(url: str, **options: Any) -> WebhookOutput:
        output = WebhookOutput(
            url,
            outbox=Outbox(tmp_path / "webhook.db"),
            on_failure=told,
            **{"clock": FakeClock(), "timeout_s": 10.0, **options},
        )
        outputs.append(output)
        return output

    yield make
    for output in outputs:
        output.close()


def keys(server: WebServer) -> list[str]:
    return [request.headers["Idempotency-Key"] for request in server.requests]


def test_events_are_posted_in_order_with_their_keys(make: Make, told: Told) -> None:
    with closing(WebServer()) as server:
        output = make(f"{server.origin}/hook?a=b", headers={"X-Line": "7"}, token="abc")
        output.write(frame())
        output.notify(state())
        for number in range(5):
            output.notify(event(number))
        output.notify(event(4, phase=Phase.ENDED))
        wait_until(lambda: output.sent == 6)
        output.close()
        assert keys(server) == [*(f"{n:032x}-started" for n in range(5)), f"{4:032x}-ended"]
        first = server.requests[0]
        assert first.path == "/hook?a=b"
        assert first.headers["Authorization"] == "Bearer abc"
        assert (first.headers["X-Line"], first.headers["Content-Type"]) == ("7", "application/json")
        document = json.loads(first.body)
        assert (document["type"], document["kind"]) == ("event", "defect")
        assert "picture" not in document
        assert (told.all, output.name) == ([], f"webhook {server.origin}")


def test_a_picture_goes_along_where_it_is_asked_for(make: Make) -> None:
    with closing(WebServer()) as server:
        output = make(server.origin, has_picture=True)
        output.notify(event(1, peak=frame(image=gray(90, 1500, 2000), score=300.0)))
        output.notify(event(2))
        wait_until(lambda: output.sent == 2)
        first, second = (json.loads(request.body) for request in server.requests)
        assert first["picture"]["type"] == "image/jpeg"
        content = np.frombuffer(base64.b64decode(first["picture"]["base64"]), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (960, 1280, 3)
        assert "picture" not in second


@pytest.mark.parametrize("code", [500, 503, 408, 429, 302, 304])
def test_what_may_pass_is_tried_again_with_the_same_key(make: Make, told: Told, code: int) -> None:
    with closing(WebServer(*[status(code)] * 3)) as server:
        output = make(server.origin)
        output.notify(event(1))
        output.notify(event(2))
        wait_until(lambda: output.sent == 2)
        assert keys(server) == [f"{1:032x}-started"] * 4 + [f"{2:032x}-started"]
        assert told.sentences == [
            f"answers with HTTP {code}. It is tried again; events wait on the disk",
            "takes events again; 1 wait",
        ]


@pytest.mark.parametrize("code", [400, 401, 404, 410, 422])
def test_what_is_refused_for_good_is_dropped_counted_and_told(
    make: Make, told: Told, code: int
) -> None:
    with closing(WebServer(status(code), status(code))) as server:
        output = make(server.origin, token="geheim")
        for number in range(3):
            output.notify(event(number))
        wait_until(lambda: output.sent == 1)
        assert (output.dead_letters, output.waiting) == (2, 0)
        assert len(server.requests) == 3
        assert told.sentences[0].startswith(f"refuses an event for good (HTTP {code})")
        assert len(told.sentences) == 2
        assert not any("geheim" in sentence for sentence in told.sentences)


def test_pauses_double_with_jitter_up_to_their_limit(make: Make) -> None:
    clock = FakeClock()
    with closing(WebServer(*[status(500)] * 12)) as server:
        output = make(server.origin, clock=clock, rng=random.Random(7))
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        pauses = clock.waits_s
        assert len(pauses) == 12
        for number, pause_s in enumerate(pauses):
            full_s = min(2.0**number, LONGEST_PAUSE_S)
            assert full_s / 2 <= pause_s <= full_s
        assert len({pause_s / min(2.0**n, LONGEST_PAUSE_S) for n, pause_s in enumerate(pauses)}) > 9


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        ("120", 120.0),
        ("0", None),
        ("99999999", LONGEST_RETRY_AFTER_S),
        ("Fri, 17 May 2024 10:05:00 GMT", 300.0),  # noon at +2
        ("soon", None),
    ],
)
def test_a_server_may_say_when(make: Make, header: str, pause_s: float | None) -> None:
    clock = FakeClock()
    with closing(WebServer(status(429, Retry_After=header))) as server:
        output = make(server.origin, clock=clock)
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
    if pause_s is None:
        assert 0.5 <= clock.waits_s[0] <= 1.0
    else:
        assert clock.waits_s == [pause_s]


def test_retry_after_in_all_forms() -> None:
    now = datetime(2024, 5, 17, 12, 0, tzinfo=timezone.utc)
    assert retry_after_s(None, now) is None
    assert retry_after_s(" 7 ", now) == 7.0
    assert retry_after_s("Fri, 17 May 2024 11:00:00 GMT", now) == 0.0
    assert retry_after_s("-3", now) is None
    assert retry_after_s("Fri, 17 May 2024 11:00:00 -0000", NOON + timedelta(0)) is None


@pytest.mark.parametrize("manner", ["stall", "drip"])
def test_a_server_that_does_not_answer_in_time_is_left(make: Make, told: Told, manner: str) -> None:
    with closing(WebServer()) as server:
        server.replies.append(getattr(server, manner))
        output = make(server.origin, timeout_s=0.3)
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        assert told.sentences[0].startswith("did not answer within 0.3 s")
        assert len(server.requests) == 2


def test_what_is_no_http_is_tried_again(make: Make, told: Told) -> None:
    with closing(WebServer(lambda handler: handler.wfile.write(b"220 mail ready\r\n"))) as server:
        output = make(server.origin)
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        assert told.sentences[0].startswith("cannot be reached: its answer is no HTTP")


def test_a_server_that_is_down_gets_it_when_it_is_there_and_a_restart_sends_the_rest(
    tmp_path: Path, told: Told
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://anna:secret@127.0.0.1:{held.getsockname()[1]}"
        output = WebhookOutput(url, outbox=Outbox(tmp_path / "a.db"), on_failure=told)
        output.notify(event(1))
        wait_until(lambda: bool(told.all))
        begun = time.monotonic()
        output.close()
        output.close()
        assert time.monotonic() - begun < 10
    assert told.sentences == [
        "cannot be reached: Connection refused. It is tried again; events wait on the disk",
        "1 events are left for the next start",
    ]
    assert not any("secret" in text for pair in told.all for text in pair)
    with closing(WebServer()) as server, closing(Outbox(tmp_path / "a.db")) as outbox:
        again = WebhookOutput(server.origin.replace("//", "//anna:s%3At@"), outbox=outbox)
        wait_until(lambda: again.sent == 1)
        again.close()
        assert keys(server) == [f"{1:032x}-started"]
        credentials = base64.b64decode(server.requests[0].headers["Authorization"].split()[1])
        assert credentials == b"anna:s:t"


def test_what_is_given_before_the_end_is_still_sent(make: Make) -> None:
    with closing(WebServer()) as server:
        output = make(server.origin)
        for number in range(20):
            output.notify(event(number))
        output.close()
        assert len(server.requests) == 20


def test_closing_does_not_wait_for_a_server_that_stalls(make: Make, told: Told) -> None:
    with closing(WebServer()) as server:
        server.replies.append(server.stall)
        output = make(server.origin, closing_s=0.1)
        output.notify(event(1))
        wait_until(lambda: len(server.requests) == 1)
        begun = time.monotonic()
        output.close()
        assert time.monotonic() - begun < 5
        assert told.sentences == ["1 events are left for the next start"]
        server.going_on.set()
        output._thread.join(20)
        output._outbox.close()


def test_a_certificate_is_checked(
    tmp_path: Path, make: Make, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_certificate(tmp_path)
    with closing(WebServer(certificate=pair)) as server:
        clock = HeldClock()
        output = make(server.origin, clock=clock)
        output.notify(event(1))
        wait_until(lambda: bool(told.all))
        assert "its certificate is refused" in told.sentences[0]
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        clock.go_on.set()
        wait_until(lambda: output.sent == 1)


# Redirects


def test_a_redirect_within_the_origin_is_followed_with_the_token(make: Make) -> None:
    with closing(WebServer(status(307, Location="/new"), status(308, Location="/newer"))) as server:
        output = make(f"{server.origin}/old", token="abc")
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        assert [request.path for request in server.requests] == ["/old", "/new", "/newer"]
        assert all(r.headers["Authorization"] == "Bearer abc" for r in server.requests)
        assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_is_never_followed(make: Make, told: Told, code: int) -> None:
    with closing(WebServer()) as other, closing(WebServer()) as server:
        server.replies.append(status(code, Location=f"{other.origin}/x"))
        output = make(server.origin, token="abc")
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        assert other.requests == []
        assert told.sentences[0].startswith(f"redirects to {other.origin}, which is not followed")


def test_redirects_in_a_circle_end(make: Make, told: Told) -> None:
    with closing(WebServer(*[status(307, Location="/a")] * 4)) as server:
        output = make(server.origin)
        output.notify(event(1))
        wait_until(lambda: output.sent == 1)
        assert told.sentences[0].startswith("answers with HTTP 307")
        assert len(server.requests) == 5


# What is refused


@pytest.mark.parametrize(
    "url",
    [
        "ftp://anna:secret@host/",
        "file:///etc/passwd",
        "host/path",
        "http://",
        "http://anna:secret@host:x/",
        "http://anna:secret@host/a b",
        "http://anna:secret@host/a\r\nX: y",
        "http://anna:secret@hôst/",
    ],
)
def test_addresses_that_cannot_be(tmp_path: Path, url: str) -> None:
    with (
        closing(Outbox(tmp_path / "a.db")) as outbox,
        pytest.raises(ConfigurationError, match="expected http:// or https://") as caught,
    ):
        WebhookOutput(url, outbox=outbox)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"token": "a\r\nX-Evil: 1"},
        {"headers": {"X Y": "1"}},
        {"headers": {"X": "a\nb"}},
        {"headers": {"X": "ä"}},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
    ],
)
def test_headers_and_times_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with closing(Outbox(tmp_path / "a.db")) as outbox:
        before = set(threading.enumerate())  # threads of other tests may end meanwhile
        with pytest.raises(ConfigurationError, match="--webhook"):
            WebhookOutput("http://127.0.0.1", outbox=outbox, **options)
        assert set(threading.enumerate()) <= before


def test_a_full_outbox_is_told(tmp_path: Path, told: Told) -> None:
    with closing(WebServer()) as server:
        server.replies.append(server.stall)
        outbox = Outbox(tmp_path / "a.db", most_messages=2)
        output = WebhookOutput(server.origin, outbox=outbox, on_failure=told, closing_s=0.1)
        for number in range(6):
            output.notify(event(number))
        assert outbox.dropped == 4
        assert sum("the outbox is full" in sentence for sentence in told.sentences) == 1
        server.going_on.set()
        output.close()
        output._thread.join(20)
        outbox.close()
