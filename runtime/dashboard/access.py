"""Who may see the dashboard: a token, sessions that are not the token, and no guessing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.errors import ConfigurationError

SHORTEST_TOKEN = 16
SESSION_S = 30 * 24 * 3600
ATTEMPTS, ATTEMPTS_S = 5, 60.0
"""So many wrong tokens from one address within so many seconds; then it waits."""

_LARGEST_TABLE = 1_000


class TooManyAttemptsError(Exception):
    """An address sent too many wrong tokens; its argument says for how many seconds to wait."""


class Access:
    """Admits holders of the token, by session or by ``Bearer``. For one thread.

    A session is signed with a key made from the token: it outlives a restart of the line, ends
    with another token, and does not give the token away.

    Args:
        token: what is asked for; ``None`` admits everybody.
        clock: its wall clock ends sessions, its monotonic one ends waiting.

    Raises:
        ConfigurationError: a token that can be guessed, or no plain characters.
    """

    def __init__(self, token: str | None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        if token is not None:
            check_token(token)
        self.is_open = token is None
        self._digest = _digest(token or "")
        self._key = hmac.digest((token or "").encode(), b"patchline dashboard session", "sha256")
        self._clock = clock
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def accepts(self, token: str, address: str) -> bool:
        """Whether this is the token; a wrong one is counted against its address.

        Raises:
            TooManyAttemptsError: the address has to wait, whatever it sent.
        """
        self._check_attempts(address)
        if hmac.compare_digest(_digest(token), self._digest):
            return True
        self._count(address)
        return False

    def open_session(self) -> str:
        """A new session: expiry, a random part, and a signature over both."""
        text = f"{int(self._now_s() + SESSION_S)}.{secrets.token_urlsafe(18)}"
        return f"{text}.{self._signature(text)}"

    def end_session(self, session: str) -> None:
        """Refuse a session from now on."""
        if self.knows_session(session):
            self._ended[session] = None
            while len(self._ended) > _LARGEST_TABLE:
                self._ended.popitem(last=False)

    def knows_session(self, session: str) -> bool:
        """Whether a session was opened with this token, and is neither over nor ended."""
        text, _, signature = session.rpartition(".")
        expected = self._signature(text)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return False
        return int(text.partition(".")[0]) > self._now_s() and session not in self._ended

    def _now_s(self) -> float:
        return self._clock.now().timestamp()

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def _check_attempts(self, address: str) -> None:
        now_s = self._clock.monotonic()
        times = self._attempts.get(address, deque())
        while times and now_s - times[0] >= ATTEMPTS_S:
            times.popleft()
        if len(times) >= ATTEMPTS:
            raise TooManyAttemptsError(ATTEMPTS_S - (now_s - times[0]))

    def _count(self, address: str) -> None:
        times = self._attempts.setdefault(address, deque(maxlen=ATTEMPTS))
        times.append(self._clock.monotonic())
        self._attempts.move_to_end(address)
        while len(self._attempts) > _LARGEST_TABLE:
            self._attempts.popitem(last=False)


def check_token(token: str) -> None:
    """Refuse a token that could be guessed, or not be sent in a header.

    Raises:
        ConfigurationError: it is too short, or holds other than visible ASCII characters.
    """
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(
            f"the dashboard's token has {len(token)} characters, expected {SHORTEST_TOKEN} or "
            f"more, for it must not be guessed. A good one: {suggested_token()}"
        )
    if not all("!" <= character <= "~" for character in token):
        raise ConfigurationError(
            "the dashboard's token holds blanks or other than ASCII characters, which a browser "
            f"or a proxy may change on the way. A good one: {suggested_token()}"
        )


def suggested_token() -> str:
    """A new token of 192 bits."""
    return secrets.token_urlsafe(24)


def _digest(token: str) -> bytes:
    # Of equal length whatever is sent, so that the comparison tells nothing about the length.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
