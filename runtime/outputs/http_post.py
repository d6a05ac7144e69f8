"""One POST with a limit on all of it: no redirect elsewhere, no answer that drips for ever."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from patchline.runtime.camera.redact import redact
from patchline.runtime.errors import ConfigurationError

_MOST_REDIRECTS = 3
_MOST_ANSWER_BYTES = 1 << 16
_SAME_POST = (307, 308)  # the others turn a POST into a GET
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class PostError(Exception):
    """No answer came; the message says why, without credentials."""


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: of HTTP.
        retry_after: the header as it is, or ``None``.
        redirect: scheme and host it points to, where that was not followed.
    """

    status: int
    retry_after: str | None = None
    redirect: str | None = None


class Target:
    """Where to post: an ``http`` or ``https`` address, with what proves who is posting.

    Args:
        url: user and password in it become basic authentication.
        headers: more headers.
        token: becomes ``Authorization: Bearer``.

    Attributes:
        origin: scheme, host and port, without credentials and without the path.

    Raises:
        ConfigurationError: another scheme, no host, or headers that cannot be.
    """

    def __init__(self, url: str, headers: Mapping[str, str], token: str | None) -> None:
        self._url = _checked(url)
        self.origin = _origin(self._url)
        self._headers = {**headers, **_authorization(self._url, token)}
        for name, value in self._headers.items():
            if not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
                raise ConfigurationError(
                    f"--webhook: the header {name!r} cannot be sent: expected a name of letters, "
                    "digits and -, and a value in one line of ASCII"
                )

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Post once, with the redirects within the same origin; nothing else is sent the headers.

        Args:
            body: sent as it is.
            headers: of this request, besides its own.
            timeout_s: for all of it, but for looking up the name.

        Raises:
            PostError: no whole answer came in time.
        """
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            answer, location = _post_once(url, body, {**self._headers, **headers}, timeout_s)
            if not 300 <= answer.status < 400 or location is None:
                return answer
            try:
                url = urlsplit(urljoin(url.geturl(), location))
                target = _origin(url)
            except ValueError:
                return answer
            if answer.status not in _SAME_POST or target != self.origin:
                return Answer(answer.status, redirect=target)
        return answer


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, at least 0; ``None`` without a sound one."""
    if text is None:
        return None
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError):  # no date, or one without a time zone
        return None


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        is_sound = url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        host, is_sound = None, False
    if not host or not is_sound or parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"--webhook {redact(url)} cannot be: expected http:// or https:// with a host"
        )
    return parts


def _origin(url: SplitResult) -> str:
    port = {"http": 80, "https": 443}.get(url.scheme) if url.port is None else url.port
    host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else url.hostname
    return f"{url.scheme}://{host}:{port}"


def _authorization(url: SplitResult, token: str | None) -> dict[str, str]:
    if token is not None:
        return {"Authorization": f"Bearer {token}"}
    if url.username is None:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _post_once(
    url: SplitResult, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> tuple[Answer, str | None]:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection = _connection(url, timeout_s)
    is_late = threading.Event()
    try:
        with contextlib.closing(connection), _deadline(connection, timeout_s, is_late):
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            answer.read(_MOST_ANSWER_BYTES)
            location = answer.getheader("Location")
            return Answer(answer.status, answer.getheader("Retry-After")), location
    except (OSError, http.client.HTTPException, ValueError) as error:
        if is_late.is_set() or isinstance(error, TimeoutError):
            raise PostError(f"did not answer within {timeout_s:g} s") from error
        raise PostError(f"cannot be reached: {_reason(error)}") from error


def _connection(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=timeout_s)


@contextlib.contextmanager
def _deadline(
    connection: http.client.HTTPConnection, timeout_s: float, is_late: threading.Event
) -> Iterator[None]:
    """The time-out of a socket begins anew with each byte; this one does not."""

    def end() -> None:
        is_late.set()
        opened = connection.sock
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    if isinstance(error, http.client.HTTPException):
        return f"its answer is no HTTP ({type(error).__name__})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "no reason"
